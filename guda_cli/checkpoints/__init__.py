"""Other people's model files: pipelines, single files, LoRAs, tokenizers, read and written."""
