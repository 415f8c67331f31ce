"""The HTML report: pictures of images and maps, plots, and one self-contained document that holds them."""
