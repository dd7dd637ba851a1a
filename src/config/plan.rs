//! Plans in files.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    error::ConfigError,
    kind::Kind,
    quota::{Plan, Quota},
    time::Period,
};

/// A plan as a file has it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PlanForm {
    name: String,
    #[serde(default, skip_serializing_if = "is_default")]
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warn_at: Option<u8>,
    #[serde(default, skip_serializing_if = "is_default")]
    starting_fresh: bool,
    limits: Vec<LimitForm>,
}

/// A limit as a file has it; one without a period is of requests in flight.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LimitForm {
    kind: String,
    limit: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per: Option<Period>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl PlanForm {
    fn plan(self) -> Result<Plan, ConfigError> {
        let mut plan = Plan::try_new(&self.name)?.numbered(self.version);
        if let Some(percent) = self.warn_at {
            ConfigError::require(percent <= 100, "warn_at", "be from 0 to 100 percent", percent)?;
            plan = plan.warn_at(percent);
        }
        if self.starting_fresh {
            plan = plan.starting_fresh();
        }
        self.limits.into_iter().try_fold(plan, |plan, limit| plan.try_limit(limit.quota()?))
    }
}

impl LimitForm {
    fn quota(self) -> Result<Quota, ConfigError> {
        let (kind, what) = (Kind::try_units(&self.kind)?, format!("limit of {}", self.kind));
        let quota = match self.per {
            Some(period) => Quota::try_of(kind, self.limit)?.per(period),
            None if kind == Kind::Concurrent => Quota::try_concurrent(self.limit)?,
            None => return Err(ConfigError::new(&what, "have a period, such as per = \"month\"", "none")),
        };
        self.name.map_or(Ok(quota.clone()), |name| quota.try_named(&name))
    }
}

/// A map with `name` and `limits`, and optionally `version`, `warn_at` (percent) and `starting_fresh`. A limit has
/// `kind`, `limit`, `per` (a period, but for `concurrent_requests`) and optionally a `name`:
///
/// ```
/// let plan: tollgate::Plan = serde_json::from_str(
///     r#"{ "name": "free", "limits": [
///         { "kind": "requests", "limit": 3600, "per": "hour" },
///         { "kind": "tokens", "limit": 1000000, "per": "month", "name": "budget" },
///         { "kind": "concurrent_requests", "limit": 5 }
///     ] }"#,
/// )?;
/// assert_eq!(plan.limits().count(), 3);
/// # Ok::<_, serde_json::Error>(())
/// ```
impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PlanForm::deserialize(deserializer)?.plan().map_err(D::Error::custom)
    }
}

/// The map that reads back as an equal plan.
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let limits = self.limits().map(|quota| LimitForm {
            kind: quota.kind().to_string(),
            limit: quota.limit(),
            per: quota.period().cloned(),
            name: quota.own_name().map(|name| name.as_str().to_owned()),
        });
        let form = PlanForm {
            name: self.name().as_str().to_owned(),
            version: self.version(),
            warn_at: Some(self.warn_at),
            starting_fresh: self.starts_fresh(),
            limits: limits.collect(),
        };
        form.serialize(serializer)
    }
}
