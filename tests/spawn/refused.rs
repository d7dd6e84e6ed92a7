//! Kernels and filters that refuse what the library would rather use.
