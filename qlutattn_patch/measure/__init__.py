"""Speed and quality: bench_attn, llama-perplexity, and plots of both."""
