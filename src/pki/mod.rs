//! Names in, PEM out: authorities, leaf certificates, requests, service-account keys and tokens. No files, no sockets.
