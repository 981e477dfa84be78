"""Programs that work on this project. The application never imports them and never ships them."""
