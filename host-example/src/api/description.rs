//! What every route has in common in the description of the interface: which problems it may answer, which scope it takes, and what the
//! names in its path look like.
//!
//! It owns these, so that no route repeats them. It does not know what a route does; one that answers a status for a reason of its own
//! says so itself.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema,
    openapi::{
        Components, ContentBuilder, ObjectBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder, Schema, Type,
        extensions::ExtensionsBuilder,
        header::HeaderBuilder,
        path::{Operation, Parameter, ParameterIn},
    },
};

use super::problem::{PROBLEM_JSON, Problem, REQUEST_ID};
use crate::serve::credentials::Scope;

/// Where a description says which scope an operation takes.
const SCOPE: &str = "x-scope";

/// No control character, as ids and names have it.
const NAME_PATTERN: &str = "^[^\\x00-\\x1f\\x7f-\\x9f]+$";

/// What signals are called.
const SIGNAL_PATTERN: &str = "^[A-Za-z0-9_-]+$";

/// What any request may be answered.
const ALWAYS: [StatusCode; 8] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// What a request about something that is named in its path may be answered too.
const OF_SOMETHING: [StatusCode; 2] = [StatusCode::NOT_FOUND, StatusCode::GONE];

/// What a request that changes something may be answered too.
const OF_CHANGE: [StatusCode; 6] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::CONFLICT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::INSUFFICIENT_STORAGE,
    StatusCode::GATEWAY_TIMEOUT,
];

const fn meaning(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "The request makes no sense as it is written",
        StatusCode::UNAUTHORIZED => "There is no token that this host knows",
        StatusCode::FORBIDDEN => "The token's scope is too small, or what was asked is not allowed here",
        StatusCode::NOT_FOUND => "What the path names is not known",
        StatusCode::REQUEST_TIMEOUT => "The body did not arrive in time",
        StatusCode::CONFLICT => "What is there stands against it",
        StatusCode::GONE => "What the path names was pruned",
        StatusCode::PAYLOAD_TOO_LARGE => "The body is longer than this host takes",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "The body is not said to be JSON",
        StatusCode::MISDIRECTED_REQUEST => "This host does not answer to that name",
        StatusCode::UNPROCESSABLE_ENTITY => "The request is understood, and refused for what it says",
        StatusCode::TOO_MANY_REQUESTS => "The caller asks too often; `Retry-After` says when to go on",
        StatusCode::SERVICE_UNAVAILABLE => "The host is busy or going down; `Retry-After` says when to try again",
        StatusCode::GATEWAY_TIMEOUT => "It may still be carried out: read before you send it again",
        StatusCode::INSUFFICIENT_STORAGE => "The store did not take it; nothing changed",
        _ => "This host failed",
    }
}

/// Says of every operation which scope it takes.
pub(super) fn take(scope: Scope, description: &mut OpenApi) {
    for operation in description.paths.paths.values_mut().flat_map(operations) {
        let extension = ExtensionsBuilder::new().add(SCOPE, json!(scope)).build();
        operation.extensions.get_or_insert_default().merge(extension);
    }
}

/// The description as it is served: with what every operation has in common with the others.
pub(super) fn complete(mut description: OpenApi) -> Value {
    complete_operations(&mut description);
    // Whatever is described has a JSON form.
    let mut description = json!(description);
    correct(&mut description);
    description
}

fn complete_operations(description: &mut OpenApi) {
    let components = description.components.get_or_insert_default();
    for status in ALWAYS.into_iter().chain(OF_SOMETHING).chain(OF_CHANGE) {
        add_problem(components, status);
    }
    for (path, item) in &mut description.paths.paths {
        let changes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in changes.into_iter().flatten() {
            may_answer(operation, &OF_CHANGE);
        }
        for operation in operations(item) {
            may_answer(operation, &ALWAYS);
            if path.contains('{') {
                may_answer(operation, &OF_SOMETHING);
            }
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    bound(parameter);
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn may_answer(operation: &mut Operation, statuses: &[StatusCode]) {
    for status in statuses {
        let problem = RefOr::Ref(Ref::from_response_name(name_of(*status)));
        operation.responses.responses.entry(status.as_str().to_owned()).or_insert(problem);
    }
}

fn name_of(status: StatusCode) -> String {
    let words = status.canonical_reason().unwrap_or_default();
    words.chars().filter(char::is_ascii_alphanumeric).collect()
}

fn add_problem(components: &mut Components, status: StatusCode) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let text =
        |description: &str| HeaderBuilder::new().schema(Some(String::schema())).description(Some(description)).build();
    let problem = ResponseBuilder::new()
        .description(meaning(status))
        .content(PROBLEM_JSON, content)
        .header(REQUEST_ID.as_str(), text("The id of the request, which is in the problem and in the log"));
    components.responses.insert(name_of(status), problem.build().into());
    components.schemas.entry("Problem".to_owned()).or_insert_with(Problem::schema);
}

/// What can stand in a path.
fn bound(parameter: &mut Parameter) {
    if parameter.parameter_in != ParameterIn::Path {
        return;
    }
    let pattern = if parameter.name == "name" { SIGNAL_PATTERN } else { NAME_PATTERN };
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(512))
        .pattern(Some(pattern))
        .build();
    parameter.schema = Some(RefOr::T(Schema::Object(text)));
}

/// Says what generated schemas say too narrowly: numbers have no sign and all of their bits, and a set may be written with repetitions.
/// A parameter that is not there is left out; there is no null that it could be.
fn correct(description: &mut Value) {
    match description {
        Value::Array(items) => items.iter_mut().for_each(correct),
        Value::Object(fields) => {
            let most = match fields.get("format").and_then(Value::as_str) {
                Some("int64") => Some(u64::MAX),
                Some("int32") => Some(u64::from(u32::MAX)),
                _ => None,
            };
            if let Some(most) = most {
                fields.remove("format");
                fields.entry("maximum").or_insert_with(|| json!(most));
            }
            fields.remove("uniqueItems");
            if let (Some(_), Some(Value::Object(schema))) = (fields.get("in").cloned(), fields.get_mut("schema")) {
                leave_out_null(schema);
            }
            fields.values_mut().for_each(correct);
        }
        _ => {}
    }
}

fn leave_out_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
    }
}
