//! Times as PostgreSQL stores them, without a calendar conversion.

use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid},
};

/// A `timestamptz`, in microseconds since 1970; the largest is `infinity`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) i64);

/// Offset of PostgreSQL's epoch, 2000-01-01, from 1970, in microseconds.
const FROM_1970: i64 = 946_684_800_000_000;

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let kept = if self.0 == i64::MAX { i64::MAX } else { self.0 - FROM_1970 };
        buffer.extend_from_slice(&kept.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let kept = match value.format() {
            PgValueFormat::Binary => i64::from_be_bytes(value.as_bytes()?.try_into()?),
            // The hexadecimal digits of the same bytes: the text of a time depends on settings.
            PgValueFormat::Text => u64::from_str_radix(value.as_str()?, 16)?.cast_signed(),
        };
        Ok(Self(kept.saturating_add(FROM_1970)))
    }
}
