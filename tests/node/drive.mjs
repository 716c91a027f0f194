// Drives every method of the official SDK against a running server: `node drive.mjs BASE KEY OUT`.
// Writes what each method answered, so that it can be checked against the published types.

import { writeFileSync } from 'node:fs';
import { Lava } from '@lavapayments/nodejs';

const [base, key, out] = process.argv.slice(2);
const lava = new Lava(key, { baseUrl: `${base}/v1/` });
const answers = [];
const called = new Set();

async function ask(resource, method, ...args) {
  called.add(`${resource}.${method}`);
  let value;
  try {
    value = await lava[resource][method](...args);
  } catch (error) {
    throw new Error(`${resource}.${method}(${JSON.stringify(args)}): ${error.message}`);
  }
  answers.push({ method: `${resource}.${method}`, value });
  return value;
}

function same(got, wanted, what) {
  if (JSON.stringify(got) !== JSON.stringify(wanted)) {
    throw new Error(`${what}: ${JSON.stringify(got)} is not ${JSON.stringify(wanted)}`);
  }
}

async function refused(status, promise) {
  const error = await promise.then(() => null, (reason) => reason);
  if (!error || !error.message.startsWith(`Lava API Error: ${status} `)) {
    throw new Error(`expected ${status}, got ${error && error.message}`);
  }
}

async function all(resource, method, params) {
  const found = [];
  let cursor;
  do {
    const page = await ask(resource, method, { ...params, limit: 2, ...(cursor && { cursor }) });
    found.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor);
  return found;
}

const stamp = Date.now().toString(36);

// Meters
const meter = await ask('meters', 'create', {
  name: 'Chat', meter_slug: `chat-${stamp}`, rate_type: 'fixed', tier_type: 'tokens_1m',
  tiers: [{ start: '0', rate: '2' }, { start: '1000', rate: '1' }],
});
same(meter.tiers[1], { start: 1000, rate: '1.0000000000', type: 'tokens_1m' }, 'tier');
same(await ask('meters', 'retrieve', meter.meter_id), meter, 'meter by id');
await ask('meters', 'update', meter.meter_id, { name: 'Chat 2' });
const spare = await ask('meters', 'create', {
  name: 'Spare', rate_type: 'percentage', tier_type: 'requests', tiers: [{ start: '0', rate: '120' }],
});
same((await all('meters', 'list')).length >= 2, true, 'meters');
same((await ask('meters', 'delete', spare.meter_id)), { id: spare.meter_id, deleted: true }, 'gone');

// Plans and bundles
const plan = await ask('subscriptions', 'createPlan', {
  name: 'Pro', period_amount: '25', billing_interval: 'month', included_credit: '20.00',
  rollover_type: 'full', bundle_rollover_type: 'none', meter_ids: [meter.meter_id],
  credit_bundles: [{ name: 'Ten', cost: '10', credit_amount: '15' }],
  default_auto_top_up_bundle_index: 0,
});
same(plan.default_auto_top_up_bundle_id, plan.credit_bundles[0].credit_bundle_id, 'default bundle');
const changed = await ask('subscriptions', 'updatePlan', plan.plan_id, {
  name: 'Pro 2',
  credit_bundles: [{ name: 'Five', cost: '5', credit_amount: '5' }],
  default_auto_top_up_bundle_id: null,
});
same(changed.credit_bundles.length, 2, 'bundles that are not named stay');
const free = await ask('subscriptions', 'createPlan', {
  name: 'Free', period_amount: '0', billing_interval: 'month', included_credit: '1.00',
  meter_ids: [meter.meter_id],
  credit_bundles: [{ name: 'One', cost: '1', credit_amount: '1' }],
});
same(await ask('subscriptions', 'retrievePlan', plan.plan_id), changed, 'plan by id');
same((await all('subscriptions', 'listPlans')).length >= 2, true, 'plans');
const bundles = await all('creditBundles', 'list', { plan_id: plan.plan_id });
same(bundles.length, 2, 'bundles of the plan');
same(await ask('creditBundles', 'retrieve', bundles[0].credit_bundle_id), bundles[0], 'bundle by id');

// Customers
const customer = await ask('customers', 'create', {
  reference_id: `ref-${stamp}`, name: 'Jane Smith', email: 'jane@example.com',
  metadata: { seats: 3 },
});
same([customer.contact.first_name, customer.contact.last_name], ['Jane', 'Smith'], 'names');
same(await ask('customers', 'create', { reference_id: `ref-${stamp}` }), customer, 'the same one');
same(await ask('customers', 'retrieve', `ref-${stamp}`), customer, 'customer by reference');
await ask('customers', 'update', customer.customer_id, { phone: '+14155550100', metadata: null });
same(await ask('customers', 'getSubscription', customer.customer_id), { subscription: null }, 'none');
const leaver = await ask('customers', 'create', {});
same(await ask('customers', 'delete', leaver.customer_id), { success: true }, 'left');
same((await all('customers', 'list')).length >= 1, true, 'customers');

// Subscriptions
await refused(409, lava.subscriptions.create({ customer_id: customer.customer_id, plan_id: plan.plan_id }));
const { subscription } = await ask('subscriptions', 'create', {
  customer_id: customer.customer_id, plan_id: free.plan_id,
});
same(subscription.credits.cycle_remaining, '1.0000000000', 'included credit');
const seen = await ask('customers', 'getSubscription', customer.customer_id);
same(seen.subscription, subscription, 'subscription of the customer');
same((await ask('customers', 'retrieve', customer.customer_id)).subscription.name, 'Free', 'summary');
await ask('subscriptions', 'update', subscription.subscription_id, {
  auto_top_up_bundle_id: free.credit_bundles[0].credit_bundle_id,
});
await ask('subscriptions', 'update', subscription.subscription_id, { auto_top_up_bundle_id: null });
same((await all('subscriptions', 'list', { customer_id: customer.customer_id })).length, 1, 'one');

// Checkout sessions
const buyPlan = await ask('checkoutSessions', 'create', {
  checkout_mode: 'subscription', origin_url: 'https://shop.example/pricing', plan_id: plan.plan_id,
});
same([buyPlan.plan_id, buyPlan.customer_id], [plan.plan_id, undefined], 'a session for anybody');
const token = JSON.parse(atob(buyPlan.checkout_session_token));
same([token.base, token.secret.slice(0, 9)], [`${base}/`, 'css_live_'], 'token');
const shown = await fetch(`${token.base}embed/checkout/${token.secret}`);
same([shown.status, (await shown.text()).includes('Pro 2')], [200, true], 'the page');
await ask('checkoutSessions', 'create', {
  checkout_mode: 'credit_bundle', origin_url: 'https://shop.example', customer_id: customer.customer_id,
  credit_bundle_id: free.credit_bundles[0].credit_bundle_id,
});
await refused(404, lava.checkoutSessions.create({
  checkout_mode: 'subscription', origin_url: 'https://shop.example', plan_id: 'sc_none',
}));

// Requests and usage
const report = {
  request_id: `r-${stamp}`, customer_id: customer.customer_id, meter_slug: meter.meter_slug,
  input_tokens: 500, output_tokens: 200, metadata: { feature: 'chat' },
};
const request = await ask('requests', 'create', report);
same(request.charge.amount, '0.0014000000', 'the worked example');
same(await ask('requests', 'create', report), request, 'the same report again');
await refused(409, lava.requests.create({ ...report, input_tokens: 1 }));
same(await ask('requests', 'retrieve', request.request_id), request, 'request by id');
const filtered = await all('requests', 'list', {
  customer_id: customer.customer_id, meter_id: meter.meter_id, metadata_filters: { feature: 'chat' },
});
same(filtered.length, 1, 'filtered requests');
const usage = await ask('usage', 'retrieve', {
  start: new Date(Date.now() - 86_400_000).toISOString(), customer_id: customer.customer_id,
  metadata_filters: { feature: 'chat' },
});
same(usage.totals.total_usage_tokens, 700, 'usage');

// Webhooks
const hook = await ask('webhooks', 'create', { name: 'Ours', url: 'https://example.com/hook' });
await ask('webhooks', 'update', hook.webhook_id, { name: 'Ours 2' });
same((await ask('webhooks', 'retrieve', hook.webhook_id)).name, 'Ours 2', 'webhook by id');
same((await all('webhooks', 'list')).length, 1, 'webhooks');
same((await ask('webhooks', 'delete', hook.webhook_id)).deleted, true, 'webhook gone');

// Keys
const secret = await ask('secretKeys', 'create', { name: 'second' });
same((await all('secretKeys', 'list')).length >= 2, true, 'keys');
await ask('secretKeys', 'delete', secret.secret_key_id);
await refused(401, new Lava(secret.secret_key, { baseUrl: `${base}/v1/` }).customers.list());

// Login: the page, the code and the new key, by the SDK's own server and a stand-in for the browser
const credentials = await Lava.login({ baseUrl: base });
answers.push({ method: 'Lava.login', value: credentials });
const tool = new Lava(credentials.secret_key, { baseUrl: `${base}/v1/` });
const mine = await tool.secretKeys.list({ limit: 100 });
same(mine.data.some((one) => one.secret_key_id === credentials.secret_key_id), true, 'own key');
same((await tool.secretKeys.delete(credentials.secret_key_id)).deleted, true, 'logged out');
const spent = await Lava.exchangeAuthCode({ code: 'lava_code_x', baseUrl: `${base}/v1/` }).catch(String);
same(spent.includes("The login's code is wrong"), true, spent);

// Gateway
const chat = { model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'Hello' }] };
const url = 'https://api.openai.com/v1/chat/completions';
const forwarded = await lava.gateway(url, {
  body: chat, customer_id: customer.customer_id, meter_slug: meter.meter_slug,
});
same(typeof forwarded.choices[0].message.content, 'string', 'gateway');
const byHand = await fetch(`${lava.providers.openai}/chat/completions`, {
  method: 'POST',
  headers: {
    authorization: `Bearer ${lava.generateForwardToken({ customer_id: null, meter_slug: null })}`,
    'content-type': 'application/json',
  },
  body: JSON.stringify(chat),
});
same([byHand.status, byHand.headers.has('x-lava-request-id')], [200, true], 'provider URL');

// Spend keys and models
const rules = {
  name: 'agent', allowed_models: ['gpt-4o-mini', 'claude-haiku-4-5'], allowed_providers: ['openai'],
  spend_limit: { amount: '5.00', cycle: 'monthly' }, request_limit: { count: 2, cycle: 'total' },
  rate_limit: { rpm: 600 }, expires_at: '2100-01-01T00:00:00Z',
};
const spend = await ask('spendKeys', 'create', rules);
const { key: _shown, ...kept } = spend;
same(await ask('spendKeys', 'retrieve', spend.spend_key_id), kept, 'spend key by id');
same([kept.request_shape, kept.rate_limit], ['openai', { rpm: 600, burst: null }], 'defaults');
await ask('spendKeys', 'update', spend.spend_key_id, { status: 'paused', rate_limit: null });
const spends = (key) => fetch(`${base}/v1/chat/completions`, {
  method: 'POST',
  headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
  body: JSON.stringify(chat),
});
same((await spends(spend.key)).status, 403, 'paused');
await ask('spendKeys', 'update', spend.spend_key_id, { status: 'active' });
same((await spends(spend.key)).status, 200, 'active');
const rotated = await ask('spendKeys', 'rotate', spend.spend_key_id);
same((await spends(spend.key)).status, 401, 'the key before');
same([(await spends(rotated.key)).status, (await spends(rotated.key)).status], [200, 429], 'two calls');
same((await all('spendKeys', 'list')).length, 1, 'spend keys');
same((await ask('models', 'list')).data.some((m) => m.id === 'claude-haiku-4-5'), true, 'models');
const seenBy = new Lava(rotated.key, { baseUrl: `${base}/v1/` });
same((await seenBy.models.list()).data.map((m) => m.id), ['gpt-4o-mini'], 'models of the key');
same(await ask('spendKeys', 'revoke', spend.spend_key_id), { success: true }, 'revoked');
await refused(404, lava.spendKeys.retrieve(spend.spend_key_id));

// The end of what was made
await ask('subscriptions', 'cancel', subscription.subscription_id);
await refused(409, lava.meters.delete(meter.meter_id));
same((await ask('subscriptions', 'deletePlan', plan.plan_id)).deleted, true, 'plan gone');

// Every method of every resource was called.
for (const [resource, object] of Object.entries(lava)) {
  const prototype = object && typeof object === 'object' && Object.getPrototypeOf(object);
  if (!prototype || prototype === Object.prototype) continue;
  for (const method of Object.getOwnPropertyNames(prototype)) {
    if (method !== 'constructor' && !called.has(`${resource}.${method}`)) {
      throw new Error(`${resource}.${method} was never called`);
    }
  }
}
writeFileSync(out, JSON.stringify(answers));
console.log(`${called.size} methods, ${answers.length} answers`);
