"""Publishing: a proven bundle becomes one commit of a repository on the Hub, with its model card."""
