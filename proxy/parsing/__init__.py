"""What a search says: its body and URL, and the text that the user typed."""
