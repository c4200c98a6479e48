"""What a folder tells its readers on the Hub."""
