"""Forward passes of language models that compute only what is scored."""
