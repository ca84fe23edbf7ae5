"""What a reader touches: explorers in the notebooks, the upload cell, and the page that serves it."""
