//! CEL in configuration files: expressions over a token's claims, a user, or a request to be authorized
//! (`apiserver/pkg/{authentication,authorization}/cel`).
//!
//! Standard functions, optional values and the strings library. Left out on purpose: types are found out when
//! an expression runs, not when it is compiled, and there is no cost limit, for only an administrator writes
//! them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::{Context, Env, IdedExpr, Program};
use serde_json::Value;

/// One compiled expression.
#[derive(Debug)]
pub struct Expression {
    source: String,
    program: Program,
}

/// What every expression may use beside its variables.
fn library() -> &'static Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| {
        let mut env = Env::stdlib();
        // Fails only for a name that is declared twice.
        let _ = env.add_extension(cel::extensions::strings);
        Arc::new(env)
    })
}

impl Expression {
    /// Compiles an expression that may speak of one variable.
    ///
    /// # Errors
    /// What is wrong with it, as a field's error says it.
    pub fn compile(source: &str, variable: &str) -> Result<Self, String> {
        Self::compile_for(source, &[variable])
    }

    /// The same with several variables.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile_for(source: &str, known: &[&str]) -> Result<Self, String> {
        let program = library().compile(source).map_err(|error| format!("compilation failed: {error}"))?;
        let references = program.references();
        // What a macro binds (`list.exists(one, …)`) is no variable of ours, nor what it counts in.
        let packed: String = source.split_whitespace().collect();
        let bound = |name: &str| {
            !name.starts_with(|c: char| c.is_ascii_alphabetic()) || packed.contains(&format!("({name},"))
        };
        if let Some(name) =
            references.variables().into_iter().find(|name| !known.contains(name) && !bound(name))
        {
            return Err(format!("compilation failed: undeclared reference to '{name}' (in container '')"));
        }
        drop(references);
        Ok(Self { source: source.to_owned(), program })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The expression's value where its variable is this.
    pub fn evaluate(&self, variable: &str, value: &Value) -> Result<Value, String> {
        let failed = |why: String| format!("expression '{}' resulted in error: {why}", self.source);
        self.value_of(&[(variable, converted(value))]).map_err(failed)
    }

    /// The expression's value where its variables are these.
    pub fn value_of(&self, variables: &[(&str, cel::Value)]) -> Result<Value, String> {
        let mut context = Context::with_env(Arc::clone(library()));
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        let result = self.program.execute(&context).map_err(|error| error.to_string())?;
        result.json().map_err(|error| error.to_string())
    }

    /// The value of an expression that must be true or false.
    pub fn holds(&self, variable: &str, value: &Value) -> Result<bool, String> {
        let result = self.evaluate(variable, value)?;
        result.as_bool().ok_or_else(|| format!("expression '{}' must evaluate to bool", self.source))
    }
}

/// An expression as it is written, to be changed before it is asked for its value.
///
/// # Errors
/// What is wrong with it.
pub fn parsed(source: &str) -> Result<IdedExpr, String> {
    library().parser().parse(source).map_err(|error| format!("compilation failed: {error}"))
}

/// The value of such an expression where its variables are these.
///
/// # Errors
/// What went wrong.
pub fn value_of_parsed(expression: &IdedExpr, variables: &[(&str, cel::Value)]) -> Result<Value, String> {
    let mut context = Context::with_env(Arc::clone(library()));
    for (name, value) in variables {
        context.add_variable_from_value(*name, value.clone());
    }
    let result = cel::Value::resolve(expression, &context).map_err(|error| error.to_string())?;
    result.json().map_err(|error| error.to_string())
}

/// JSON as CEL has it: every number is a double, as Go's decoder makes it.
fn converted(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => cel::Value::Float(number.as_f64().unwrap_or_default()),
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => list.iter().map(converted).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| (name.clone(), converted(value)));
            pairs.collect::<HashMap<_, _>>().into()
        }
    }
}

/// JSON as CEL has it where whole numbers are whole.
pub fn exactly(value: &Value) -> cel::Value {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::Array(list) => list.iter().map(exactly).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| (name.clone(), exactly(value)));
            pairs.collect::<HashMap<_, _>>().into()
        }
        other => converted(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_read_compared_and_put_together() {
        let claims = json!({"sub": "jane", "hd": "example.com", "roles": "a,b", "exp": 200, "nbf": 100, "deep": {"x": ["y"]}});
        let value = |source: &str| Expression::compile(source, "claims").unwrap().evaluate("claims", &claims);
        assert_eq!(value("claims.sub + '@' + claims.hd").unwrap(), json!("jane@example.com"));
        assert_eq!(value("claims.roles.split(',')").unwrap(), json!(["a", "b"]));
        assert_eq!(value("claims.exp - claims.nbf <= 86400").unwrap(), json!(true));
        assert_eq!(value("has(claims.email) ? claims.email : 'none'").unwrap(), json!("none"));
        assert_eq!(value("claims.?missing.orValue('none')").unwrap(), json!("none"));
        assert_eq!(value("claims.deep.x.exists(one, one.startsWith('y'))").unwrap(), json!(true));
        assert!(value("claims.missing").unwrap_err().contains("resulted in error"));
    }

    #[test]
    fn what_cannot_be_compiled_says_why() {
        assert!(Expression::compile("claims.", "claims").unwrap_err().starts_with("compilation failed"));
        let error = Expression::compile("user.username", "claims").unwrap_err();
        assert_eq!(error, "compilation failed: undeclared reference to 'user' (in container '')");
        let odd = Expression::compile("claims.a", "claims").unwrap();
        assert!(odd.holds("claims", &json!({"a": "x"})).unwrap_err().ends_with("must evaluate to bool"));
    }
}
