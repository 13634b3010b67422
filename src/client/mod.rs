//! What every role that talks to the API server shares: a client from a kubeconfig, reconnection, events, delegated authentication and authorization.
