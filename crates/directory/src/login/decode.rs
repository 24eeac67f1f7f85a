//! A page that shows what is in a token. The token never leaves the browser.

use arcadia_kernel::{At, Fault, Open, Permit, Reply, Request};

use crate::login::Login;
use crate::login::page::Page;

const BODY: &str = "<p>Paste a token. It is taken apart here, in this page, and sent nowhere.</p>\
    <label for=\"t\">Token</label><textarea id=\"t\" rows=\"8\" spellcheck=\"false\" autocomplete=\"off\"></textarea>\
    <p id=\"e\" class=\"error\" role=\"alert\"></p><h2>Header</h2><pre id=\"h\"></pre><h2>Claims</h2>\
    <pre id=\"c\"></pre><p id=\"w\"></p><p class=\"small\">Whether the signature is right is not checked here.</p>";

const SCRIPT: &str = r##"
const at = id => document.getElementById(id);
const part = text => {
  const plain = text.replace(/-/g, "+").replace(/_/g, "/");
  const bytes = Uint8Array.from(atob(plain + "=".repeat((4 - plain.length % 4) % 4)), c => c.charCodeAt(0));
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
};
const when = seconds => new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
const show = () => {
  for (const id of ["h", "c", "e", "w"]) at(id).textContent = "";
  const text = at("t").value.trim().replace(/^bearer\s+/i, "");
  if (!text) return;
  try {
    const parts = text.split(".");
    if (parts.length !== 3) throw new Error("three parts are expected");
    at("h").textContent = JSON.stringify(part(parts[0]), null, 2);
    const claims = part(parts[1]);
    at("c").textContent = JSON.stringify(claims, null, 2);
    const times = ["iat", "nbf", "exp"].filter(name => Number.isFinite(claims[name]));
    at("w").textContent = times.map(name => name + " = " + when(claims[name])).join(", ");
  } catch (error) {
    at("e").textContent = "This is not a token: " + error.message + ".";
  }
};
at("t").addEventListener("input", show);
addEventListener("hashchange", show);
const given = new URLSearchParams(location.hash.slice(1));
const token = given.get("access_token") || given.get("id_token") || given.get("token");
if (token) { at("t").value = token; show(); }
"##;

pub(super) async fn show(at: At<Login>, _: Permit<Open>, _: Request) -> Result<Reply, Fault> {
    let mut page = Page::new("What is in a token", BODY.to_owned());
    page.script = Some(SCRIPT);
    page.wide = true;
    page.render(&at.directory, None)
}
