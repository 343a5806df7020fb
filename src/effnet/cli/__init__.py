"""The command line: ``effnet models | recipes | plan | train | evaluate | predict | export``."""
