//! Images: the built-in toolbox, and those loaded from archives.
