"""One module per page: `render(view)` gives its title and content."""
