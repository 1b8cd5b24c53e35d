// The page at /docs: Swagger UI with this server's OpenAPI document.
const node = document.querySelector("#docs");

SwaggerUIBundle({
  domNode: node,
  url: node.dataset.document,
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // the online validator would send this server's URL to a third party
});
