//! A TLS record stream that owns no buffers while idle, over unbuffered rustls.
