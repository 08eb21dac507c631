use super::*;

fn decide(version: i64, code_version: &str, disabled: bool) -> std::result::Result<Plan, String> {
    let stored = Stored { version, code_version: code_version.into() };
    plan(&stored, "here", disabled).map_err(|error| error.to_string())
}

/// Each line was tried on SPIRE 1.16.0-dev.
#[test]
fn plans() {
    let serve = |note_release| Ok(Plan::Serve { note_release });
    assert_eq!(decide(25, "1.16.0-dev-unk", false), serve(true));
    assert_eq!(decide(25, "1.15.3", true), serve(true));
    assert_eq!(decide(25, CODE_VERSION, false), serve(false));
    assert_eq!(decide(25, "1.99.0", false), serve(false));
    assert_eq!(decide(25, "2.0.0", true), serve(false));
    for version in [23, 24] {
        assert_eq!(decide(version, "1.15.3", false), Ok(Plan::Migrate));
        // The release does not matter where migration is allowed.
        assert_eq!(decide(version, "1.8.0", false), Ok(Plan::Migrate));
        assert_eq!(decide(version, "", false), Ok(Plan::Migrate));
    }
    assert_eq!(decide(26, "1.17.0", false), Ok(Plan::ServeNewer));
    assert_eq!(decide(26, "1.17.0", true), Ok(Plan::ServeNewer));
}

#[test]
fn refusals_say_what_to_do() {
    for (version, code_version, disabled, text) in [
        (
            22,
            "1.15.0",
            false,
            "schema version 22 (written by release 1.15.0), expected 25; migrating it requires a previous SPIRE release",
        ),
        (0, "", false, "schema version 0"),
        (23, "1.15.3", true, "start one server without disable_migration"),
        (24, "1.14.0", true, "auto-migration must be enabled for current DB"),
        (26, "1.18.0", false, "incompatible DB schema and code version: use a newer release"),
        (26, "1.18.0", true, "auto-migration must be enabled for current DB"),
        (25, "bogus", false, "unable to parse code version from DB: No Major.Minor.Patch elements found"),
    ] {
        let refusal = decide(version, code_version, disabled).unwrap_err();
        assert!(refusal.contains(text) && refusal.contains("\"here\""), "{refusal}");
    }
}
