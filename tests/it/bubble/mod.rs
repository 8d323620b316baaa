//! A strict Bubble: the Data API of an app, in this process, with all traps that are known. The
//! tests ask it by raw HTTP, and each shows one fact. These are the facts that each part follows:
//!
//! - `fake::answer`: The address is `/api/1.1/obj/TYPE`, below `/version-test` or the name of a
//!   branch for other databases. A token of the app's settings is an administrator's. Without a
//!   token, or with a user's, privacy rules hold: rows are left out without a sign, and a
//!   constraint on a hidden field is not applied. A hidden thing that is asked for by its id
//!   answers with the id alone. `cursor`, `count` and `remaining` add up to the total. Empty fields
//!   are left out, or are `null`.
//! - `fake::search`: A `limit` above 100 is taken for 100. Offsets are computed at each request.
//!   Ties come in an order that changes between requests, unless the id is a sort field. Without
//!   `sort_field` the order is by id, which is another one than that of creation. Past an offset of
//!   50,000 a page is empty while `remaining` stays above 0.
//! - `fake::constraint`: All constraints hold together. `greater than` and `less than` are strict.
//!   A date is given as rows show it, or as milliseconds in a text. `equals` on a date is refused,
//!   because no source says that it works. `geographic_search` is left out.
//! - `fake::datum`: Dates have three digits and 24 characters. One column mixes `12` and `12.5`,
//!   which are doubles. Lists are cut at 200 items.
//! - `fake::schema`: A field has a display name and an id, and a setting says which of them is its
//!   key. The id outlasts a rename. The keys of built-in fields never change.
//! - `fake::app`: Ids begin with the clock of the creating device. Live, test and branches are
//!   separate databases with settings of their own. A Created Date never changes. A Modified Date
//!   does at each edit. A deletion leaves no trace. Bulk creation gives many things one date.
//! - `fake::problem`: 401 for a token, 404 for all that does not exist, 400 for a parameter that
//!   cannot be read, 405 for a method, 414 past 2,000 characters.
//! - `fake::fault`: 429 with and without `Retry-After`, HTML with 5xx and 200, short pages, cut
//!   connections, slow answers, redirects.
//! - `fake::meta`: `/meta` and the Swagger file are open, for tokens or hidden.
//! - `fake::bill`: The prices are the manual's. The count in `remaining` is billed as an aggregate.

mod acceptance;
mod ask;
mod edits;
mod fake;
mod histories;
mod mirror;
mod model;
mod shop;
mod tests;
mod ties;
