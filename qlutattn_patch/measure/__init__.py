"""How fast and how good: bench_attn, llama-perplexity, and plots of both."""
