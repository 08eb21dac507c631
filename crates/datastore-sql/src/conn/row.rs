//! One row of an answer.

use std::fmt::Display;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use sqlx::mysql::{MySqlRow, MySqlValueRef};
use sqlx::postgres::{PgRow, PgValueRef};
use sqlx::{Row as _, TypeInfo, ValueRef as _};
use steeple_datastore::{Error, Result};

use crate::error;
use crate::time;

/// SPIRE's rows may hold NULL where a column came later: it reads as the empty value.
pub(crate) enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a PgRow),
    MySql(&'a MySqlRow),
}

impl Row<'_> {
    /// Whole numbers and truth values of any width.
    pub fn int(&self, column: usize) -> Result<i64> {
        match self {
            Self::Sqlite(row) => {
                Ok(row.get::<_, Option<i64>>(column).map_err(error::sqlite)?.unwrap_or_default())
            }
            Self::Postgres(row) => match postgres(row, column)? {
                Some(value) => postgres_int(&value),
                None => Ok(0),
            },
            Self::MySql(row) => match mysql(row, column)? {
                // DECIMAL is text on the wire.
                Some(value) if value.type_info().name() == "DECIMAL" => {
                    self.text(column)?.parse().map_err(unreadable)
                }
                Some(value) => <i64 as sqlx::Decode<sqlx::MySql>>::decode(value).map_err(unreadable),
                None => Ok(0),
            },
        }
    }

    pub fn flag(&self, column: usize) -> Result<bool> {
        Ok(self.int(column)? != 0)
    }

    pub fn text(&self, column: usize) -> Result<&str> {
        match self {
            Self::Sqlite(row) => match row.get_ref(column).map_err(error::sqlite)? {
                ValueRef::Null => Ok(""),
                value => value.as_str().map_err(|wrong| error::sqlite(wrong.into())),
            },
            Self::Postgres(row) => {
                postgres(row, column)?.map_or(Ok(""), |value| value.as_str()).map_err(unreadable)
            }
            Self::MySql(row) => mysql(row, column)?
                .map_or(Ok(""), <&str as sqlx::Decode<sqlx::MySql>>::decode)
                .map_err(unreadable),
        }
    }

    pub fn blob(&self, column: usize) -> Result<&[u8]> {
        match self {
            Self::Sqlite(row) => match row.get_ref(column).map_err(error::sqlite)? {
                ValueRef::Null => Ok(&[]),
                ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Ok(bytes),
                value => value.as_blob().map_err(|wrong| error::sqlite(wrong.into())),
            },
            Self::Postgres(row) => {
                postgres(row, column)?.map_or(Ok(&[][..]), |value| value.as_bytes()).map_err(unreadable)
            }
            Self::MySql(row) => mysql(row, column)?
                .map_or(Ok(&[][..]), <&[u8] as sqlx::Decode<sqlx::MySql>>::decode)
                .map_err(unreadable),
        }
    }

    /// Unix seconds of a datetime column, cut; 0 if it holds none.
    pub fn seconds(&self, column: usize) -> Result<i64> {
        if let Self::Sqlite(_) = self {
            return Ok(time::seconds(self.text(column)?).unwrap_or_default());
        }
        Ok(self.micros(column)?.map_or(0, |micros| micros.div_euclid(1_000_000)))
    }

    /// Unix seconds of a datetime column, to the nearest: how SPIRE reports when an entry was created.
    pub fn nearest_second(&self, column: usize) -> Result<i64> {
        if let Self::Sqlite(_) = self {
            return Ok(time::nearest_second(self.text(column)?).unwrap_or_default());
        }
        Ok(self.micros(column)?.map_or(0, |micros| micros.saturating_add(500_000).div_euclid(1_000_000)))
    }

    /// A datetime column that is not NULL, with all the digits that it has.
    pub fn time(&self, column: usize) -> Result<Timestamp> {
        let time = match self {
            Self::Sqlite(_) => self.text(column)?.parse().ok(),
            _ => self.micros(column)?.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
        };
        time.ok_or_else(|| unreadable("no time"))
    }

    pub fn is_null(&self, column: usize) -> Result<bool> {
        Ok(match self {
            Self::Sqlite(row) => {
                matches!(row.get_ref(column).map_err(error::sqlite)?, ValueRef::Null)
            }
            Self::Postgres(row) => postgres(row, column)?.is_none(),
            Self::MySql(row) => mysql(row, column)?.is_none(),
        })
    }

    /// A datetime column in microseconds of Unix time.
    fn micros(&self, column: usize) -> Result<Option<i64>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            // Binary: microseconds since 2000-01-01.
            Self::Postgres(_) => match self.blob(column)? {
                [] => Ok(None),
                bytes => {
                    let micros = i64::from_be_bytes(bytes.try_into().map_err(unreadable)?);
                    Ok(Some(micros.saturating_add(946_684_800_000_000)))
                }
            },
            Self::MySql(_) => Ok(time::mysql_micros(self.blob(column)?)),
        }
    }
}

fn postgres(row: &PgRow, column: usize) -> Result<Option<PgValueRef<'_>>> {
    let value = row.try_get_raw(column).map_err(unreadable)?;
    Ok((!value.is_null()).then_some(value))
}

fn mysql(row: &MySqlRow, column: usize) -> Result<Option<MySqlValueRef<'_>>> {
    let value = row.try_get_raw(column).map_err(unreadable)?;
    Ok((!value.is_null()).then_some(value))
}

fn postgres_int(value: &PgValueRef<'_>) -> Result<i64> {
    let bytes = value.as_bytes().map_err(unreadable)?;
    let wrong = |_| unreadable(format!("{} bytes are no whole number", bytes.len()));
    Ok(match bytes.len() {
        1 => i64::from(bytes[0] != 0),
        2 => i16::from_be_bytes(bytes.try_into().map_err(wrong)?).into(),
        4 => i32::from_be_bytes(bytes.try_into().map_err(wrong)?).into(),
        _ => i64::from_be_bytes(bytes.try_into().map_err(wrong)?),
    })
}

fn unreadable(reason: impl Display) -> Error {
    Error::Internal(format!("unreadable column: {reason}"))
}
