"""Work that outlives its request, over REST: tasks, OpenAI's files, batches and responses."""
