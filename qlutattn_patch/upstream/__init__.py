"""llama.cpp as its authors made it: the pin, archives, releases, and cached work trees of them."""
