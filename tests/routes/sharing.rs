//! What scripts of other sites may ask for and read (CORS).

use testkit::browser::document_of;
use testkit::{Backend, Config, Gateway, Listener, Pool};

use crate::ways::Ways;

const ORIGIN: &str = "access-control-allow-origin";
const METHODS: &str = "access-control-allow-methods";
const HEADERS: &str = "access-control-allow-headers";
const CREDENTIALS: &str = "access-control-allow-credentials";
const LOOK: [&str; 5] = [ORIGIN, METHODS, HEADERS, CREDENTIALS, "vary"];

/// A backend with an opinion of its own on origins, and a configuration with it as pool `web`.
fn rig() -> (Backend, Config) {
    let backend = Backend::start(|conn| {
        conn.request()?;
        conn.respond(
            200,
            &[("Access-Control-Allow-Origin", "https://backend.example"), ("X-Total", "7")],
            b"web",
        )
    });
    let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
    (backend, Config::new().pool(pool))
}

pub(crate) fn x_15_r_12_r_13_preflights_are_answered_and_responses_name_their_origin() {
    let (backend, config) = rig();
    let config = config.text(
        r#"
        [policies.shared.cors]
        allow_origins = ["https://app.example.com", "https://*.apps.example.com", "http://app.example.com:8080"]
        allow_methods = ["PUT"]
        allow_headers = ["X-One", "X-Two"]
        [policies.any.cors]
        allow_origins = ["*"]
        allow_methods = ["*"]
        allow_headers = ["*"]
        [policies.cookies.cors]
        allow_origins = ["*"]
        allow_methods = ["*"]
        allow_credentials = true
        reflect_any_origin = true
        [policies.closed.access]
        deny = ["0.0.0.0/0", "::/0"]
        "#,
    );
    let routes = r#"
        [[listeners.routes]]
        path_prefix = "/shared"
        methods = ["PUT", "GET"]
        pool = "web"
        [[listeners.routes]]
        path_prefix = "/any"
        policies = ["any"]
        pool = "web"
        [[listeners.routes]]
        path_prefix = "/cookies"
        policies = ["cookies"]
        pool = "web"
        [[listeners.routes]]
        path_prefix = "/alone"
        without = ["cors"]
        pool = "web"
        [[listeners.routes]]
        path_prefix = "/closed"
        policies = ["closed"]
        pool = "web"
        [[listeners.routes]]
        path_prefix = "/mixed"
        methods = ["POST"]
        pool = "web"
        [[listeners.routes]]
        path_prefix = "/mixed"
        without = ["cors"]
        pool = "web"
        [[listeners.routes]]
        path_prefix = "/answer"
        respond = { status = 200, body = "fixed" }
        "#;
    let ways =
        Ways::start_with(config, routes, |listener| listener.key("policies", vec!["shared".to_owned()]));
    let app = "https://app.example.com";
    let all = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    // Path, origin, announced method; status, and what the answer says of origin, methods, fields and credentials.
    for (path, origin, method, status, told) in [
        ("/shared", app, "PUT", 204, [app, "PUT", "X-One, X-Two", "", all]),
        (
            "/shared",
            "https://a.b.apps.example.com",
            "PUT",
            204,
            ["https://a.b.apps.example.com", "PUT", "X-One, X-Two", "", all],
        ),
        (
            "/shared",
            "http://app.example.com:8080",
            "GET",
            204,
            ["http://app.example.com:8080", "PUT", "X-One, X-Two", "", all],
        ),
        ("/shared", "https://apps.example.com", "PUT", 403, ["", "", "", "", all]),
        ("/shared", "https://app.example.com.evil", "PUT", 403, ["", "", "", "", all]),
        ("/shared", "https://evilapps.example.com", "PUT", 403, ["", "", "", "", all]),
        ("/shared", "http://app.example.com", "PUT", 403, ["", "", "", "", all]),
        ("/shared", "null", "PUT", 403, ["", "", "", "", all]),
        ("/any", "null", "DELETE", 204, ["*", "*", "*", "", ""]),
        (
            "/cookies",
            "https://other.example",
            "PATCH",
            204,
            ["https://other.example", "PATCH", "", "true", all],
        ),
        ("/answer", app, "PUT", 204, [app, "PUT", "X-One, X-Two", "", all]),
        // The route of the announced method decides, and none is found for a path that has none.
        ("/mixed", app, "POST", 204, [app, "PUT", "X-One, X-Two", "", all]),
        ("/nothing", app, "PUT", 204, [app, "PUT", "X-One, X-Two", "", all]),
        // Who may not come in is told so before anything else.
        ("/closed", app, "PUT", 403, [app, "PUT", "X-One, X-Two", "", all]),
    ] {
        let heard = backend.request_count();
        let fields = [("Origin", origin), ("Access-Control-Request-Method", method)];
        for got in ways.ask("OPTIONS", path, &fields, &LOOK) {
            let found = LOOK.map(|name| got.header(name).unwrap_or_default());
            assert_eq!(
                (got.status, found),
                (status, told.map(str::to_owned)),
                "{path} {origin} {}",
                got.version
            );
        }
        assert_eq!(backend.request_count(), heard, "no backend gets a preflight: {path}");
    }
    // What is no preflight is forwarded, and so is one that leads where there is no CORS.
    for (path, fields, origin) in [
        ("/shared", vec![("Origin", app)], None),
        ("/any", vec![("Origin", app)], Some("*")),
        ("/any", vec![("Access-Control-Request-Method", "PUT")], None),
        (
            "/alone",
            vec![("Origin", app), ("Access-Control-Request-Method", "PUT")],
            Some("https://backend.example"),
        ),
        (
            "/mixed",
            vec![("Origin", app), ("Access-Control-Request-Method", "PUT")],
            Some("https://backend.example"),
        ),
    ] {
        let heard = backend.request_count();
        let is_404 = path == "/shared";
        for got in ways.ask("OPTIONS", path, &fields, &LOOK) {
            assert_eq!(got.status, if is_404 { 404 } else { 200 }, "{path} {fields:?} {}", got.version);
            let expected = if is_404 { Some(app) } else { origin };
            assert_eq!(got.header(ORIGIN).as_deref(), expected, "{path} {fields:?} {}", got.version);
        }
        assert_eq!(backend.request_count(), heard + if is_404 { 0 } else { 3 }, "{path} {fields:?}");
    }
    // Any request is served, and says which origin may read the response; the backend's opinion does not count.
    for (method, path, origin, status, named, vary) in [
        ("GET", "/shared", Some(app), 200, Some(app), Some("Origin")),
        ("GET", "/shared", Some("https://evil.example"), 200, None, Some("Origin")),
        ("GET", "/shared", None, 200, None, Some("Origin")),
        ("GET", "/any", Some("https://evil.example"), 200, Some("*"), None),
        ("GET", "/answer", Some(app), 200, Some(app), Some("Origin")),
        ("GET", "/nothing", Some(app), 404, Some(app), Some("Origin")),
        ("GET", "/closed", Some(app), 403, Some(app), Some("Origin")),
        ("GET", "/alone", Some(app), 200, Some("https://backend.example"), None),
    ] {
        let fields: Vec<_> = origin.iter().map(|origin| ("Origin", *origin)).collect();
        for got in ways.ask(method, path, &fields, &LOOK) {
            assert_eq!(got.status, status, "{path} {origin:?} {}", got.version);
            let told = (got.header(ORIGIN), got.header("vary"));
            assert_eq!(
                told,
                (named.map(str::to_owned), vary.map(str::to_owned)),
                "{path} {origin:?} {}",
                got.version
            );
        }
    }
    assert_eq!(ways.gateway.metric("filter_answers_total", &[("reason", "cors_origin")]), 15.0);
}

const PAGE: &str = r#"<!doctype html><title>page</title><p id=p>nothing</p><script>
const out = [];
const ask = async (name, url, options) => {
    try { const got = await fetch(url, options); out.push(name + '=' + got.status + ':' + await got.text() + ':' + got.headers.get('x-total')); }
    catch (error) { out.push(name + '=blocked'); }
};
(async () => {
    await ask('put', API + '/shared', { method: 'PUT', headers: { 'x-one': '1' }, body: 'x' });
    await ask('delete', API + '/shared', { method: 'DELETE' });
    await ask('field', API + '/shared', { method: 'PUT', headers: { 'x-three': '1' } });
    await ask('gone', API + '/gone', {});
    await ask('other', API + '/other', {});
    document.getElementById('p').textContent = out.join(' ');
})();
</script>"#;

/// A browser lets a script do what the policy says, and nothing else.
pub(crate) fn chromium_heeds_the_policy() {
    let (backend, config) = rig();
    let page = Listener::h1();
    let site = format!("http://127.0.0.1:{}", page.address.port());
    let api = Listener::h1();
    let at = format!("http://127.0.0.1:{}", api.address.port());
    let text = PAGE.replace("API", &format!("'{at}'"));
    let config = config.text(&format!(
        "[policies.shared.cors]\nallow_origins = [\"{site}\"]\nallow_methods = [\"PUT\"]\nallow_headers = [\"x-one\"]\n\
         expose_headers = [\"X-Total\"]\n[policies.other.cors]\nallow_origins = [\"https://other.example\"]\n"
    ));
    let page = page.text(&format!(
        "[[listeners.routes]]\nrespond = {{ status = 200, content_type = \"text/html\", body = '''{text}''' }}\n"
    ));
    let api = api.text(
        "[[listeners.routes]]\npath = \"/shared\"\npolicies = [\"shared\"]\npool = \"web\"\n\
         [[listeners.routes]]\npath = \"/other\"\npolicies = [\"other\"]\npool = \"web\"\n\
         [[listeners.routes]]\npath = \"/gone\"\npolicies = [\"shared\"]\nrespond = { status = 410, body = \"gone\" }\n",
    );
    let _gateway = Gateway::start(config.listener(page).listener(api));
    let said = document_of(&format!("{site}/"), &[]);
    let expected = "put=200:web:7 delete=blocked field=blocked gone=410:gone:null other=blocked";
    assert!(said.stdout.contains(expected), "{}\n{}", said.stdout, said.stderr);
    let methods: Vec<String> = backend.requests().iter().map(|request| request.method().to_owned()).collect();
    assert_eq!(methods, ["PUT", "GET"], "the browser sends what it may, and what a form could");
}
