//! The console: pages about all rollups, one of them, and each slice. `serve` shows them, and
//! `status --html` writes them into one file.
//!
//! | module | part |
//! |---|---|
//! | `pages` | which page an address asks for; the one file |
//! | `facts` | what is read for them |
//! | `home`, `detail`, `calendar`, `chart`, `story`, `coverage` | the parts of pages |
//! | `process`, `act` | what the serving process knows, and what operators do |
//! | `target` | questions to the target |
//! | `words` | sentences that several of them share |
//! | `html` | the frame, and the policy that lets a page load and run nothing |

mod act;
mod calendar;
mod chart;
mod coverage;
mod detail;
mod facts;
mod home;
mod html;
mod pages;
mod process;
mod story;
mod target;
mod words;

pub(super) use act::Actions;
pub(super) use html::{POLICY, Setting};
pub(super) use pages::{Acted, Page, act as act_on, file, is_page, parameters, show};
pub(super) use process::Process;
