//! What a browser sees: forms without script.

use super::{PASSWORD, Site, cookies_of, token_of};

#[tokio::test]
async fn a_person_registers_logs_out_and_in_by_forms() {
    let site = Site::new().await;
    let form = site.page("/register", "").await;
    assert!(form.text().contains("<label for=\"email\">"), "{}", form.text());
    let asked = site.submit("/register", "", &[("email", " Ada@Shop.example ")]).await;
    assert_eq!((asked.status.as_u16(), asked.header("location")), (303, Some("/mail-sent")));
    assert!(site.page("/mail-sent", "").await.text().contains("mailbox"));
    let token = site.token().await;
    // Programs that check mails follow links, some of them twice.
    for _ in 0..2 {
        let page = site.page(&format!("/confirm?token={token}"), "").await;
        assert!(page.status == 200 && page.text().contains(&token));
        assert_eq!(page.header("cache-control"), Some("no-store"));
    }
    let fields = [("token", token.as_str()), ("name", "Ada"), ("password", PASSWORD)];
    let made = site.submit("/confirm", "", &fields).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (303, Some("/account")), "{}", made.text());
    let cookie = cookies_of(&made);
    let page = site.page("/account", &cookie).await;
    assert!(page.text().contains("ada@shop.example") && page.text().contains("this device"));
    // The link is spent.
    let again = site.submit("/confirm", "", &fields).await;
    assert_eq!(again.status, 422);
    let out = site.submit("/log-out", &cookie, &[]).await;
    assert_eq!((out.status.as_u16(), out.header("location")), (303, Some("/log-in")));
    assert_eq!(site.page("/account", &cookie).await.header("location"), Some("/log-in?next=%2Faccount"));
    let fields = [("email", "ADA@shop.example"), ("password", PASSWORD), ("next", "/probe")];
    let back = site.submit("/log-in", &cookie, &fields).await;
    assert_eq!((back.status.as_u16(), back.header("location")), (303, Some("/probe")));
}

#[tokio::test]
async fn a_form_that_is_wrong_comes_back_as_it_was_filled_in() {
    let site = Site::new().await;
    let refused = site.submit("/register", "", &[("email", "<ada>")]).await;
    let page = refused.text();
    assert_eq!(refused.status, 422);
    assert!(
        page.contains("value=\"&#60;ada&#62;\"") && page.contains("aria-describedby=\"email-error\""),
        "{page}"
    );
    assert!(page.contains("id=\"email-error\">Your address is not an address"), "{page}");
    site.submit("/register", "", &[("email", "ada@shop.example")]).await;
    let token = site.token().await;
    let fields = [("token", token.as_str()), ("name", "Ada L."), ("password", "password1234567")];
    let refused = site.submit("/confirm", "", &fields).await;
    let page = refused.text();
    assert!(refused.status == 422 && page.contains("value=\"Ada L.\""), "{page}");
    // A password is not sent back, and the link is not spent by a mistake.
    assert!(!page.contains("password1234567") && page.contains(&token) && page.contains("password-error"));
    let fields = [("token", token.as_str()), ("name", "Ada L."), ("password", PASSWORD)];
    assert_eq!(site.submit("/confirm", "", &fields).await.status, 303);
    let wrong =
        site.submit("/log-in", "", &[("email", "ada@shop.example"), ("password", "x"), ("next", "/a")]).await;
    let page = wrong.text();
    assert!(
        wrong.status == 422 && page.contains("value=\"ada@shop.example\"") && page.contains("value=\"/a\"")
    );
    assert!(page.contains("role=\"alert\">The address and the password do not belong together."), "{page}");
}

#[tokio::test]
async fn after_a_log_in_one_comes_to_no_other_site() {
    let site = Site::new().await;
    site.register("ada@shop.example").await;
    for next in
        ["//e.example", "/\\e.example", "/\t/e.example", "https://e.example", "javascript:alert(1)", ""]
    {
        let fields = [("email", "ada@shop.example"), ("password", PASSWORD), ("next", next)];
        let response = site.submit("/log-in", "", &fields).await;
        assert_eq!(response.header("location"), Some("/account"), "{next:?}");
    }
    // The control.
    let fields = [("email", "ada@shop.example"), ("password", PASSWORD), ("next", "/a?b=c")];
    assert_eq!(site.submit("/log-in", "", &fields).await.header("location"), Some("/a?b=c"));
}

#[tokio::test]
async fn a_mail_has_the_public_url_whatever_host_is_asked() {
    let site = Site::with(&[("SERVER__SERVER__PUBLIC_URL", "https://shop.example")]).await;
    let headers = [("host", "evil.example"), ("x-forwarded-host", "evil.example")];
    let body = r#"{"email": "ada@shop.example"}"#;
    let asked = site.app.call(axum::http::Method::POST, "/register", &headers, body).await;
    assert_eq!(asked.status, 202);
    let mails = site.mails().await;
    let mail = &mails[0];
    assert!(mail.contains("https://shop.example/confirm?token") && !mail.contains("evil"), "{mail}");
    assert_eq!(token_of(&mails[0]).len(), 43);
}
