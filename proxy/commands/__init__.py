"""The command line's commands besides `serve`."""
