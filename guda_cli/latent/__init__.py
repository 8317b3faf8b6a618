"""The parts of a latent text-to-image model beside its denoising network: VAE, text encoder, tokenizer."""
