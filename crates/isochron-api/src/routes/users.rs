//! `/v1/users`

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Asked, Body, Named, Refusal, Served, to_end};
use crate::ApiError;
use crate::dto::{NewUser, User, UserChange};

/// All users, by name.
#[utoipa::path(get, path = "/v1/users", operation_id = "list_users", tag = "users",
    responses((status = 200, description = "Users", body = [User]), Refusal))]
pub(super) async fn list(
    Asked(engine): Asked,
    State(served): State<Served>,
) -> Result<Json<Vec<User>>, ApiError> {
    let users = served.users.list(&engine)?;
    Ok(Json(users.into_iter().map(Into::into).collect()))
}

/// Adds a user.
#[utoipa::path(post, path = "/v1/users", operation_id = "add_user", tag = "users",
    request_body = NewUser,
    responses((status = 201, description = "The user", body = User), Refusal))]
pub(super) async fn create(
    Asked(engine): Asked,
    State(served): State<Served>,
    Body(new): Body<NewUser>,
) -> Result<(StatusCode, Json<User>), ApiError> {
    let user = to_end(async move {
        let NewUser {
            name,
            role,
            password,
            ntlm,
        } = new;
        let role = role.into();
        served.users.add(&engine, &name, role, password, ntlm).await
    })
    .await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

/// Gives a user another password, another role, or both, in this order.
#[utoipa::path(patch, path = "/v1/users/{user}", operation_id = "change_user", tag = "users",
    params(("user" = String, Path, description = "Name")), request_body = UserChange,
    responses((status = 200, description = "The user", body = User), Refusal))]
pub(super) async fn change(
    Asked(engine): Asked,
    State(served): State<Served>,
    Named(name): Named<String>,
    Body(change): Body<UserChange>,
) -> Result<Json<User>, ApiError> {
    let UserChange {
        password,
        ntlm,
        role,
    } = change;
    if password.is_none() && role.is_none() {
        return Err(ApiError::invalid("neither a password nor a role is given"));
    }
    if ntlm && password.is_none() {
        return Err(ApiError::invalid(
            "NTLM needs a hash of its own, which is made of a new password: give one",
        ));
    }
    let user = to_end(async move {
        let users = &served.users;
        let mut changed = None;
        if let Some(password) = password {
            changed = Some(users.set_password(&engine, &name, password, ntlm).await?);
        }
        if let Some(role) = role {
            changed = Some(users.set_role(&engine, &name, role.into()).await?);
        }
        Ok(changed)
    })
    .await?;
    // One of the two was given.
    user.map(|user| Json(user.into()))
        .ok_or_else(|| ApiError::invalid("nothing was changed"))
}

/// Removes a user.
#[utoipa::path(delete, path = "/v1/users/{user}", operation_id = "remove_user", tag = "users",
    params(("user" = String, Path, description = "Name")),
    responses((status = 204, description = "Removed"), Refusal))]
pub(super) async fn remove(
    Asked(engine): Asked,
    State(served): State<Served>,
    Named(name): Named<String>,
) -> Result<StatusCode, ApiError> {
    to_end(async move { served.users.remove(&engine, &name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
