//! One request message out of path, query and body.
//!
//! Each field has one source. What the path says holds: the same field in the query or the body may repeat it and not
//! contradict it, because silently following either would act on another thing. A text that is the default of its field
//! counts as absent, as it does on the wire.

use super::escape::{self, Keep, Plus};
use super::json::read::{self, Form};
use super::json::{Fault, shown, text};
use super::routes::{Binding, Body, Part, Variable};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};
use std::collections::{BTreeSet, HashSet};

/// Most parts of a query's field path.
const PATH_PARTS: usize = 16;

/// Builds the request of a call from what the wildcards of its path stand for, the query and the body.
///
/// `ignored` are names of the query that bind nothing and are no mistake.
///
/// # Errors
///
/// The first part of the request that cannot be taken.
pub(super) fn request(binding: &Binding, values: &[&str], query: Option<&str>, body: &[u8], ignored: &BTreeSet<String>) -> Result<DynamicMessage, Fault> {
    let mut message = self::body(binding, body)?;
    let mut seen = HashSet::new();
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = escape::decode(name, Plus::Space, Keep::Nothing).map_err(|what| Fault::of(shown(name), what))?;
        if ignored.contains(&name) {
            continue;
        }
        let value = escape::decode(value, Plus::Space, Keep::Nothing).map_err(|what| Fault::of(shown(&name), what))?;
        let target = target(binding, &name)?;
        let field = path_of(&target);
        // Of two values none is the right one; under both of its names a field is given twice as well.
        if !target.last().is_some_and(FieldDescriptor::is_list) && !seen.insert(field.clone()) {
            return Err(Fault::of(field, "is given twice"));
        }
        put(&mut message, &target, &value).map_err(|fault| Fault { field, ..fault })?;
    }
    for variable in &binding.variables {
        put_variable(&mut message, variable, values)?;
    }
    Ok(message)
}

fn body(binding: &Binding, body: &[u8]) -> Result<DynamicMessage, Fault> {
    let input = binding.method.input();
    let mut message = DynamicMessage::new(input.clone());
    if body.is_empty() || binding.body == Body::None {
        return Ok(message);
    }
    let json = text::parse(body).map_err(|fault| Fault::new(format!("the body is no valid JSON: {fault}")))?;
    match &binding.body {
        Body::None => {}
        Body::Whole if !json.is_object() => return Err(Fault::new("the body must be a JSON object")),
        Body::Whole => message = read::message(&input, &json)?,
        Body::Field(_) if json.is_null() => {}
        Body::Field(field) => {
            let value = read::of_field(field, &json).map_err(|fault| fault.inside(field.name()))?;
            message.set_field(field, value);
        }
    }
    Ok(message)
}

/// The way to the field that a name of the query stands for; those that the query may not fill are refused.
fn target(binding: &Binding, name: &str) -> Result<Vec<FieldDescriptor>, Fault> {
    let fault = |what: &str| Fault::of(shown(name), what);
    let unknown = || fault("is no parameter of this call");
    let mut owner = Some(binding.method.input());
    let mut field: Vec<FieldDescriptor> = Vec::new();
    for part in name.split('.') {
        if field.len() == PATH_PARTS {
            return Err(unknown());
        }
        let next = owner.take().and_then(|owner| read::by_name(&owner, part)).ok_or_else(unknown)?;
        if let Kind::Message(message) = next.kind()
            && !next.is_list()
            && !next.is_map()
            && Form::of(&message) == Form::Fields
        {
            owner = Some(message);
        }
        field.push(next);
    }
    if owner.is_some() {
        return Err(fault("is a message; give its fields one by one, as NAME.FIELD"));
    }
    if field.iter().any(FieldDescriptor::is_map) {
        return Err(fault("is a map and cannot be given in the query"));
    }
    let is_free = match &binding.body {
        Body::Whole => false,
        Body::None => true,
        Body::Field(body) => field.first() != Some(body),
    };
    if is_free { Ok(field) } else { Err(unknown()) }
}

/// Puts a value of the query into its field.
fn put(message: &mut DynamicMessage, field: &[FieldDescriptor], text: &str) -> Result<(), Fault> {
    let Some((last, owners)) = field.split_last() else { return Ok(()) };
    let value = read::text(&last.kind(), text)?;
    let owner = descend(message, owners)?;
    if !last.is_list() {
        return read::set(owner, last, value);
    }
    match owner.get_field_mut(last) {
        Value::List(list) => list.push(value),
        _ => owner.set_field(last, Value::List(vec![value])),
    }
    Ok(())
}

fn path_of(field: &[FieldDescriptor]) -> String {
    field.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

/// The message that the last of these fields holds, made where it is absent.
fn descend<'m>(mut message: &'m mut DynamicMessage, owners: &[FieldDescriptor]) -> Result<&'m mut DynamicMessage, Fault> {
    for owner in owners {
        if !message.has_field(owner) {
            let Kind::Message(kind) = owner.kind() else { return Err(Fault::new("leads through a scalar")) };
            read::set(message, owner, Value::Message(DynamicMessage::new(kind)))?;
        }
        message = message.get_field_mut(owner).as_message_mut().ok_or_else(|| Fault::new("leads through a scalar"))?;
    }
    Ok(message)
}

/// Fills a field from the path, unless another value stands there already.
fn put_variable(message: &mut DynamicMessage, variable: &Variable, values: &[&str]) -> Result<(), Fault> {
    let fault = |what: String| Fault::of(path_of(&variable.field), what);
    let raw: Vec<&str> = variable
        .parts
        .iter()
        .map(|part| match part {
            Part::Literal(text) => text.as_str(),
            Part::Wildcard(index) => values.get(*index).copied().unwrap_or_default(),
        })
        .collect();
    let joined = raw.join("/");
    // Of many segments reserved characters stay encoded: a slash that was encoded must not look like one that was not.
    let keep = if variable.is_many { Keep::Reserved } else { Keep::Nothing };
    let text = escape::decode(&joined, Plus::Plus, keep).map_err(|what| fault(what.to_owned()))?;
    let Some((last, owners)) = variable.field.split_last() else { return Ok(()) };
    let value = read::text(&last.kind(), &text).map_err(|inner| fault(inner.what))?;
    let owner = descend(message, owners).map_err(|inner| fault(inner.what))?;
    if owner.has_field(last) && *owner.get_field(last) != value {
        return Err(fault("differs from the one in the path".to_owned()));
    }
    read::set(owner, last, value).map_err(|inner| fault(inner.what))
}

#[cfg(test)]
mod tests;
