"""SavedModels: inspection and callables around their signatures."""
