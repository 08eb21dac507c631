use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 7541, appendix B, for the characters the tests use.
fn code(c: char) -> (u32, u32) {
    let rows: [(&str, u32, u32); 9] = [
        ("012aceiost", 0, 5),
        (" %-./3456789=A_bdfghlmnpru", 0x14, 6),
        (":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz", 0x5c, 7),
        ("&*,;XZ", 0xf8, 8),
        ("!\"()?", 0x3f8, 10),
        ("'+|", 0x7fa, 11),
        ("#>", 0xffa, 12),
        ("\0$@[]~", 0x1ff8, 13),
        ("^}", 0x3ffc, 14),
    ];
    for (chars, first, bits) in rows {
        if let Some(at) = chars.chars().position(|known| known == c) {
            return (first + at as u32, bits);
        }
    }
    panic!("no code for {c:?}");
}

fn huffman(text: &str) -> Vec<u8> {
    let mut bits = String::new();
    for c in text.chars() {
        let (code, length) = code(c);
        bits.extend((0..length).rev().map(|bit| if (code >> bit) & 1 == 1 { '1' } else { '0' }));
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    bits.as_bytes()
        .chunks(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect()
}

fn integer(out: &mut Vec<u8>, flags: u8, bits: u8, value: usize) {
    let most = (1usize << bits) - 1;
    if value < most {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &str, as_huffman: bool) {
    if as_huffman {
        let coded = huffman(text);
        integer(out, 0x80, 7, coded.len());
        out.extend(coded);
    } else {
        integer(out, 0, 7, text.len());
        out.extend(text.as_bytes());
    }
}

/// How a header is represented.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// 0x40 incremental indexing, 0 without, 0x10 never.
    kind: u8,
    static_name: bool,
    huffman_name: bool,
    huffman_value: bool,
}

fn literal(out: &mut Vec<u8>, form: Form, static_index: Option<usize>, name: &str, value: &str) {
    let bits = if form.kind == 0x40 { 6 } else { 4 };
    if let Some(index) = static_index.filter(|_| form.static_name) {
        integer(out, form.kind, bits, index);
    } else {
        out.push(form.kind);
        string(out, name, form.huffman_name);
    }
    string(out, value, form.huffman_value);
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags, 0, 0, 0, 1]);
    out.extend(payload);
}

/// A request's bytes: preface, SETTINGS, HEADERS with `authority` among others, DATA.
fn request(form: Form, authority: &str, split: &[usize], padded: bool, priority: bool) -> Vec<u8> {
    let mut block = vec![0x3f, 0xe1, 0x1f]; // table size update to 4096
    block.push(0x83); // :method POST
    literal(&mut block, form, Some(4), ":path", "/x.y/Z%2F");
    literal(&mut block, form, Some(1), ":authority", authority);
    literal(&mut block, form, None, "xyauthority", "/a/b%c");
    block.push(0xbe); // indexed, dynamic
    let mut out = PREFACE.to_vec();
    frame(&mut out, 4, 0, &[0, 3, 0, 0, 0, 100]);
    let cuts: Vec<usize> = split.iter().map(|at| at % (block.len() + 1)).collect();
    let mut cuts = cuts;
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts {
        pieces.push(block[from..cut].to_vec());
        from = cut;
    }
    pieces.push(block[from..].to_vec());
    let last = pieces.len() - 1;
    for (at, piece) in pieces.iter().enumerate() {
        let end = if at == last { 4 } else { 0 };
        if at > 0 {
            frame(&mut out, 9, end, piece);
            continue;
        }
        let mut payload = Vec::new();
        let mut flags = end;
        if padded {
            flags |= 8;
            payload.push(3);
        }
        if priority {
            flags |= 0x20;
            payload.extend([0, 0, 0, 0, b'/']);
        }
        payload.extend(piece);
        if padded {
            payload.extend(b"/%/");
        }
        frame(&mut out, 1, flags, &payload);
    }
    frame(&mut out, 0, 1, b":authority /tmp/%2F");
    out
}

/// What comes out when the bytes are read in portions of these sizes, into buffers of those.
fn filtered(bytes: &[u8], portions: &[usize], buffers: &[usize]) -> Vec<u8> {
    let chunks = {
        let mut rest = bytes;
        let mut chunks = std::collections::VecDeque::new();
        let mut sizes = portions.iter().copied().cycle();
        while !rest.is_empty() {
            let count = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
            chunks.push_back(rest[..count].to_vec());
            rest = &rest[count..];
        }
        chunks
    };
    let mut filter = AuthorityFilter::new(Portions(chunks));
    let mut out = Vec::new();
    let mut sizes = buffers.iter().copied().cycle();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    loop {
        let mut space = vec![0; sizes.next().unwrap_or(8_192).max(1)];
        let mut buf = ReadBuf::new(&mut space);
        assert!(matches!(Pin::new(&mut filter).poll_read(&mut cx, &mut buf), Poll::Ready(Ok(()))));
        if buf.filled().is_empty() {
            break;
        }
        out.extend_from_slice(buf.filled());
    }
    assert_eq!((filter.held.capacity(), filter.released.capacity()), (0, 0), "nothing is kept for long");
    out
}

/// Yields one portion a read, or part of it.
struct Portions(std::collections::VecDeque<Vec<u8>>);

impl AsyncRead for Portions {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(chunk) = self.0.front_mut() {
            let count = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..count]);
            chunk.drain(..count);
            if chunk.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

const PLAIN: Form = Form { kind: 0x40, static_name: true, huffman_name: false, huffman_value: false };

#[test]
fn paths_become_authorities() {
    for (sent, seen) in [
        ("/tmp/x.sock", "-tmp-x.sock"),
        ("%2Ftmp%2Fx.sock", "-2Ftmp-2Fx.sock"),
        ("localhost", "localhost"),
        ("127.0.0.1:8081", "127.0.0.1:8081"),
        ("[::1]:8081", "[::1]:8081"),
    ] {
        for huffman_value in [false, true] {
            let form = Form { huffman_value, ..PLAIN };
            let out = filtered(&request(form, sent, &[], false, false), &[], &[]);
            assert_eq!(out, request(form, seen, &[], false, false), "{sent} {huffman_value}");
        }
    }
    // What has a meaning in an authority loses it in a path: two colons would be refused.
    let raw = filtered(&request(PLAIN, "/a:b:c@[d]", &[], false, false), &[], &[]);
    assert_eq!(raw, request(PLAIN, "-a-b-c--d-", &[], false, false));
    let form = Form { huffman_value: true, ..PLAIN };
    let coded = filtered(&request(form, "/a:b:c@[d] |?", &[], false, false), &[], &[]);
    assert_eq!(coded, request(form, "-aBbBc~~d~-+!", &[], false, false));
}

#[test]
fn what_is_not_http2_passes() {
    for bytes in [
        b"GET /a%20b HTTP/1.1\r\nHost: /x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM/%/%/%/%/%/%".to_vec(),
        b"PRI".to_vec(),
        vec![],
    ] {
        assert_eq!(filtered(&bytes, &[1], &[1]), bytes);
    }
}

#[test]
fn malformed_frames_pass() {
    let with = |build: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = PREFACE.to_vec();
        build(&mut bytes);
        frame(&mut bytes, 1, 4, b"\x41\x01/");
        bytes
    };
    for bytes in [
        with(&|out| frame(out, 1, 0x0c, &[])), // PADDED without a pad length
        with(&|out| frame(out, 1, 0x0c, &[9, b'/'])), // padding longer than the frame
        with(&|out| frame(out, 1, 0x24, b"/")), // PRIORITY cut off
        with(&|out| frame(out, 1, 0, b"\x82")), // a block that another frame interrupts
        with(&|out| frame(out, 1, 4, b"\x41\x05a")), // a block that ends in a value
        with(&|out| frame(out, 1, 4, b"\x40\x00\x01/")), // no name
        with(&|out| frame(out, 1, 4, b"\x7f\xff\xff\xff\xff\xff\xff/")), // an index without end
    ] {
        assert_eq!(filtered(&bytes, &[3], &[2]), bytes);
    }
    // A CONTINUATION nobody asked for is h2's to refuse; what follows is read on.
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, 9, 4, b"\x41\x01/");
    assert_eq!(filtered(&bytes, &[], &[]), bytes);
}

#[test]
fn a_symbol_across_many_empty_frames_is_given_up() {
    let mut bytes = PREFACE.to_vec();
    let value = huffman("aaa/b");
    let mut head = vec![0x41, 0x80 | value.len() as u8];
    head.extend(&value[..2]);
    frame(&mut bytes, 1, 0, &head);
    for _ in 0..1_000 {
        frame(&mut bytes, 9, 0, &[]);
    }
    frame(&mut bytes, 9, 4, &value[2..]);
    assert_eq!(filtered(&bytes, &[5], &[100]), bytes);
}

#[test]
fn an_end_within_a_symbol_loses_nothing() {
    let bytes = request(Form { huffman_value: true, ..PLAIN }, "/tmp/x.sock", &[], false, false);
    for end in 0..bytes.len() {
        assert_eq!(filtered(&bytes[..end], &[], &[]).len(), end);
    }
}

#[tokio::test]
async fn a_held_byte_waits_for_the_next() {
    let bytes = request(Form { huffman_value: true, ..PLAIN }, "/tmp/x.sock", &[], false, false);
    let expected = request(Form { huffman_value: true, ..PLAIN }, "-tmp-x.sock", &[], false, false);
    let (mut client, server) = tokio::io::duplex(1);
    let writer = async move {
        for byte in bytes {
            client.write_all(&[byte]).await.unwrap();
        }
    };
    let mut filter = AuthorityFilter::new(server);
    let mut out = Vec::new();
    let ((), read) = tokio::join!(writer, filter.read_to_end(&mut out));
    read.unwrap();
    assert_eq!(out, expected);
}

fn form() -> impl Strategy<Value = Form> {
    (prop::sample::select(vec![0x40, 0, 0x10]), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(kind, static_name, huffman_name, huffman_value)| Form {
            kind,
            static_name,
            huffman_name,
            huffman_value,
        },
    )
}

/// The rules of the module, over text.
fn rewritten(authority: &str, huffman_value: bool) -> String {
    let mut in_path = false;
    let replace = |c: char| {
        in_path |= matches!(c, '/' | '%');
        let means_something = matches!(c, ':' | '@' | '[' | ']');
        let stays = !" /%?\"|\0".contains(c);
        if stays && !(in_path && means_something) {
            return c;
        }
        match c {
            ':' if huffman_value => 'B',
            '@' | '[' | ']' | '\0' if huffman_value => '~',
            '?' | '"' if huffman_value => '!',
            '|' if huffman_value => '+',
            _ => '-',
        }
    };
    authority.chars().map(replace).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_representation_split_anywhere(
        form in form(),
        authority in r#"[a-zA-Z0-9/%:.@_\[\]~ ?"|\x00!$&'()*+,;=-]{0,40}"#,
        split in prop::collection::vec(any::<usize>(), 0..4),
        padded: bool,
        priority: bool,
        portions in prop::collection::vec(1usize..40, 0..5),
        buffers in prop::collection::vec(1usize..40, 0..5),
    ) {
        let sent = request(form, &authority, &split, padded, priority);
        let expected = request(form, &rewritten(&authority, form.huffman_value), &split, padded, priority);
        prop_assert_eq!(filtered(&sent, &portions, &buffers), expected);
    }

    #[test]
    fn a_path_becomes_what_http_accepts(path in "[/%][a-zA-Z0-9/%:.@_ -]{0,60}", huffman_value: bool) {
        let seen = rewritten(&path, huffman_value);
        prop_assert!(seen.parse::<http::uri::Authority>().is_ok(), "{}", seen);
    }

    #[test]
    fn bytes_are_neither_lost_nor_made(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        with_preface: bool,
        portions in prop::collection::vec(1usize..50, 0..4),
    ) {
        let mut bytes = if with_preface { PREFACE.to_vec() } else { Vec::new() };
        bytes.extend(noise);
        prop_assert_eq!(filtered(&bytes, &portions, &[7]).len(), bytes.len());
    }
}
