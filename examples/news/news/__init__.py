"""The top stories, summed up by Millrace: an example of an internal caller of its generated stubs."""
