// A till in Node: loads the contracts, signs in, sells, sells again with the same request id, and once without one.
// Prints one JSON object: both orders, and the code of the refusal. Arguments:
//
//   node sale.mjs <identity> <commerce> <client id> <client secret> <image> <sale>
//
//   identity, commerce   host:port of their gRPC; the edge's, twice, is as good
//   image                the contracts in one file: .venv/bin/python proto/generate.py --image siyu.binpb
//   sale                 a SellRequest as JSON, such as {"request_id": "…", "sale": {"till_id": "t1", "sale_number": "1",
//                        "basket": {"store_id": "s1", "channel": "pos", "lines": [{"line_id": "1", "sku": "tea",
//                        "quantity": 2}]}, "payments": [{"tender": "TENDER_CARD"}]}}
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [identity, commerce, clientId, clientSecret, image, saleJson] = process.argv.slice(2);
const options = { keepCase: true, longs: String, enums: String, defaults: true };
const contracts = grpc.loadPackageDefinition(loader.loadFileDescriptorSetFromBuffer(readFileSync(image), options)).siyu;
const insecure = grpc.credentials.createInsecure();

const call = (client, method, request, metadata = new grpc.Metadata()) =>
  new Promise((resolve, reject) =>
    client[method](request, metadata, { deadline: Date.now() + 10_000 }, (error, reply) => (error ? reject(error) : resolve(reply))),
  );

const tokens = new contracts.identity.v1.TokenService(identity, insecure);
const token = await call(tokens, "IssueToken", { client_id: clientId, client_secret: clientSecret });
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token.access_token}`);

const till = new contracts.commerce.v1.PosService(commerce, insecure);
const request = JSON.parse(saleJson);
const first = await call(till, "Sell", request, metadata);
const again = await call(till, "Sell", request, metadata);
let refusal = "";
try {
  await call(till, "Sell", { ...request, request_id: "" }, metadata);
} catch (error) {
  refusal = grpc.status[error.code];
}
console.log(JSON.stringify({ first: first.order, again: again.order, refusal }));
process.exit(0);
