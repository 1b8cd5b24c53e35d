// The page at /docs: Swagger UI over this server's own description, and over nobody else's.
const place = document.querySelector("#docs");

SwaggerUIBundle({
  domNode: place,
  url: place.dataset.document,
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // it would tell a server elsewhere where we are
});
