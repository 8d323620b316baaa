//! A wire to PostgreSQL. It knows enough of the protocol (version 3, "Message Formats" in its
//! documentation) to find the beginning of a call and the end of its reply.

use std::io::{BufReader, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

use super::names;
use super::wire::{Moment, Wires, terminate};

/// The client's request for TLS, after the length.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Serves one connection, call by call, until either side closes it.
pub fn serve(
    wires: &Wires,
    side: &str,
    admin: &str,
    client: &TcpStream,
    server: &TcpStream,
) -> Result<()> {
    let (mut calls, mut replies) = (BufReader::new(client), BufReader::new(server));
    let (mut client, mut server) = (client, server);
    let mut begin = startup(&mut calls)?;
    if begin[4..] == SSL_REQUEST {
        client.write_all(b"N")?;
        begin = startup(&mut calls)?;
    }
    let connect = Some("connect".to_owned());
    let mut call = Call { bytes: begin, sql: connect, has_reply: true, ..Call::default() };
    let (mut sql, mut backend) = (String::new(), 0);
    loop {
        sql = call.sql.take().unwrap_or(sql);
        let met = wires.meet(&names::of_sql(side, &sql, &call.kinds));
        let end = || terminate(admin, backend);
        if !wires.may_go_on(&met, Moment::Before, Some(&end)) {
            return Ok(());
        }
        server.write_all(&call.bytes)?;
        let reply = if call.has_reply { reply(&mut replies)? } else { Reply::default() };
        backend = reply.backend.unwrap_or(backend);
        let end = || terminate(admin, backend);
        if !wires.may_go_on(&met, Moment::After, Some(&end)) {
            return Ok(());
        }
        client.write_all(&reply.bytes)?;
        if reply.is_last {
            return Ok(());
        }
        call = Call::read(&mut calls)?;
        if call.is_farewell {
            return server.write_all(&call.bytes);
        }
    }
}

/// The bytes that a client sends before it waits.
#[derive(Default)]
struct Call {
    bytes: Vec<u8>,
    /// The statement in it, if there is one.
    sql: Option<String>,
    /// The kinds of its messages.
    kinds: Vec<u8>,
    has_reply: bool,
    is_farewell: bool,
}

impl Call {
    fn read(from: &mut impl Read) -> Result<Self> {
        let mut call = Self::default();
        loop {
            let (kind, body) = message(from, &mut call.bytes)?;
            let text = |bytes: &[u8]| {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                String::from_utf8_lossy(&bytes[..end]).into_owned()
            };
            match kind {
                b'Q' => call.sql = Some(text(&body)),
                // The statement's name comes first, and is empty.
                b'P' => call.sql = Some(text(&body[1..])),
                _ => {}
            }
            call.kinds.push(kind);
            call.has_reply = kind != b'd';
            call.is_farewell = kind == b'X';
            if matches!(kind, b'Q' | b'S' | b'H' | b'd' | b'c' | b'f' | b'X') {
                return Ok(call);
            }
        }
    }
}

#[derive(Default)]
struct Reply {
    bytes: Vec<u8>,
    /// The server's process ID, which it sends first.
    backend: Option<u32>,
    /// The server has closed the connection.
    is_last: bool,
}

/// All bytes until the server waits for the client again, or closes the connection.
fn reply(from: &mut impl Read) -> Result<Reply> {
    let mut reply = Reply::default();
    loop {
        match message(from, &mut reply.bytes) {
            Ok((b'Z' | b'G', _)) => return Ok(reply),
            Ok((b'K', body)) => {
                reply.backend = Some(u32::from_be_bytes(body[..4].try_into().unwrap()))
            }
            Ok((b'R', body)) => {
                assert_eq!(body[..4], [0; 4], "the tests' server asks for no password")
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                reply.is_last = true;
                return Ok(reply);
            }
            Err(error) => return Err(error),
        }
    }
}

/// One message: appends it to `bytes`, and returns its kind and its body.
fn message(from: &mut impl Read, bytes: &mut Vec<u8>) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
    let mut body = vec![0; length - 4];
    from.read_exact(&mut body)?;
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&body);
    Ok((head[0], body))
}

/// The first message, which has no kind.
fn startup(from: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = length.to_vec();
    bytes.resize(u32::from_be_bytes(length) as usize, 0);
    from.read_exact(&mut bytes[4..])?;
    Ok(bytes)
}
