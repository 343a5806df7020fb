"""From a folder of pictures to batches of pixels, the same ones however many threads prepare them."""
