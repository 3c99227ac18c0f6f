"""REST and server-sent events to gRPC and back; translates, decides nothing, keeps no state."""
