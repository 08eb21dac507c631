use super::*;

fn header() -> Header {
    Header {
        steeple_backup: FORMAT,
        schema_version: 25,
        code_version: "1.16.0".into(),
        engine: "sqlite3".into(),
        log_id: "log".into(),
        revision: 7,
        created_at: "2026-11-23T14:30:40Z".into(),
    }
}

fn file() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::start(&mut out, &header()).unwrap();
    writer.table(&TableLine { table: "t".into(), columns: vec!["id".into()], last_id: 9 }).unwrap();
    for id in [1, 9] {
        writer.row("t", &[id.into(), "text".into()]).unwrap();
    }
    writer.finish().unwrap();
    out
}

/// Reads to the end; how many rows.
fn read(mut bytes: &[u8]) -> Result<u64, String> {
    let mut rows = 0;
    let (mut reader, found) = Reader::start(&mut bytes).map_err(|error| error.to_string())?;
    assert_eq!(found, header());
    loop {
        match reader.next().map_err(|error| error.to_string())? {
            Line::Table(table) => assert_eq!((table.table.as_str(), table.last_id), ("t", 9)),
            Line::Row(_) => rows += 1,
            Line::End(counts) => {
                assert_eq!(counts["t"], rows);
                return Ok(rows);
            }
        }
    }
}

#[test]
fn there_and_back() {
    assert_eq!(read(&file()), Ok(2));
}

/// Wherever it is cut, and whichever byte is turned.
#[test]
fn no_part_is_taken_for_the_whole() {
    let file = file();
    let header = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for end in 0..file.len() {
        assert!(read_any(&file[..end]).is_err(), "cut at {end}");
    }
    assert!(read(&file[..file.len() - 5]).unwrap_err().contains("cut short"));
    for at in header..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(read_any(&changed).is_err(), "byte {at}");
    }
}

fn read_any(mut bytes: &[u8]) -> Result<(), String> {
    let (mut reader, _) = Reader::start(&mut bytes).map_err(|error| error.to_string())?;
    loop {
        if let Line::End(_) = reader.next().map_err(|error| error.to_string())? {
            return Ok(());
        }
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let text = |bytes: &[u8]| read_any(bytes).unwrap_err();
    assert!(text(b"").contains("empty"));
    assert!(text(b"SQLite format 3\0\n").contains("no header"));
    assert!(text(b"{\"a\":1}\n").contains("no header"));
    assert!(text(b"{\"steeple_backup\":2}\n").contains("format 2"), "{}", text(b"{\"steeple_backup\":2}\n"));
    let mut longer = file();
    longer.extend_from_slice(b"{}\n");
    assert!(text(&longer).contains("behind the end"));
    let missing = String::from_utf8(file()).unwrap().replace("[9,\"text\"]\n", "");
    assert!(text(missing.as_bytes()).contains("rows are missing"));
}
