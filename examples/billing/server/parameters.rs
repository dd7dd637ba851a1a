//! Strict reading of requests: a missing, repeated or misspelt value is an error and is never guessed.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use tollgate::Client;

use super::problem::Problem;

/// Largest amount that JSON numbers hold exactly.
const MOST: u64 = (1 << 53) - 1;

/// Longest name of a tenant, in bytes.
const LONGEST: usize = 200;

/// Parameters of a query.
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        let axum::extract::Query(parameters) =
            query.map_err(|_| Problem::bad_request("the query must be name=value&..."))?;
        Ok(Self(parameters))
    }
}

impl Parameters {
    /// Rejects all parameters but these: a misspelt one would be ignored silently.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                Err(Problem::bad_request(format!("parameters must be among {}, got {name:?}", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err(Problem::bad_request(format!("{name} must be given once"))),
            (value, _) => Ok(value.map(|(_, value)| value.as_str())),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, Problem> {
        let text = self.get(name)?.filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| Problem::bad_request(format!("{name} must be given: ?{name}=...")))
    }

    pub(super) fn amount(&self, name: &str) -> Result<u64, Problem> {
        amount(name, self.text(name)?).map_err(Problem::bad_request)
    }
}

/// Reads a whole number in digits only.
pub(super) fn amount(name: &str, text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number
        .filter(|number| (1..=MOST).contains(number))
        .ok_or_else(|| format!("{name} must be a whole number from 1 to 2^53 - 1, got {:?}", shown(text)))
}

/// Returns the value of a required header, which must occur once.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => {
            value.to_str().map_err(|_| Problem::bad_request(format!("{name} must be visible ASCII characters")))
        }
        (None, _) => Err(Problem::bad_request(format!("the header {name} must be sent"))),
        _ => Err(Problem::bad_request(format!("the header {name} must be sent once"))),
    }
}

pub(super) fn tenant(name: &str) -> Result<Client, Problem> {
    let visible = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > LONGEST || !visible {
        let reason = format!("a tenant's name must be 1 to {LONGEST} visible ASCII characters, got {:?}", shown(name));
        return Err(Problem::bad_request(reason));
    }
    Ok(Client::named(name))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
