//! Every socket and every TLS decision: listeners, dialling, verification choices by name.
