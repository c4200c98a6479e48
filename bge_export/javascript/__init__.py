"""The Transformers.js clients in which an exported folder is verified: their versions, installation and control."""
