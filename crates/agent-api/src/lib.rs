//! The agent's sockets: Workload API, admin services, the client side of the server's API.
