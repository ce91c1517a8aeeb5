//! The two sides of a TLS connection, and the types of rustls for each.
//!
//! rustls' connection types are named in this file and nowhere outside of this crate: upstream replaces them.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{CommonState, ExtractedSecrets};

/// A side of a TLS connection: [`Server`] or [`Client`].
pub trait Side: RustlsSide {}

/// The side that accepts.
#[derive(Debug)]
pub enum Server {}

/// The side that dials.
#[derive(Debug)]
pub enum Client {}

impl Side for Server {}
impl Side for Client {}

/// rustls' types and methods for a side. The module is private, so no other crate can add a side.
pub trait RustlsSide: Send + 'static {
    /// rustls' connection.
    type Connection: Send;
    /// rustls' marker.
    type Data;
    /// Whether this is the side that dials.
    const CLIENT: bool;

    /// Runs rustls' state machine over `incoming`.
    fn process<'c, 'i>(
        connection: &'c mut Self::Connection,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The negotiated parameters.
    fn state(connection: &Self::Connection) -> &CommonState;

    /// Returns the secrets of a finished handshake, and the state that derives further ones.
    fn into_kernel(
        connection: Self::Connection,
    ) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error>;
}

/// Gives a side rustls' types for it. Their methods have the same names, and no trait of rustls has both.
macro_rules! rustls_side {
    ($side:ty, $connection:ty, $data:ty, client: $client:literal) => {
        impl RustlsSide for $side {
            type Connection = $connection;
            type Data = $data;
            const CLIENT: bool = $client;

            fn process<'c, 'i>(
                connection: &'c mut Self::Connection,
                incoming: &'i mut [u8],
            ) -> UnbufferedStatus<'c, 'i, Self::Data> {
                connection.process_tls_records(incoming)
            }

            fn state(connection: &Self::Connection) -> &CommonState {
                connection
            }

            fn into_kernel(
                connection: Self::Connection,
            ) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error> {
                connection.dangerous_into_kernel_connection()
            }
        }
    };
}

rustls_side!(Server, UnbufferedServerConnection, ServerConnectionData, client: false);
rustls_side!(Client, UnbufferedClientConnection, ClientConnectionData, client: true);
