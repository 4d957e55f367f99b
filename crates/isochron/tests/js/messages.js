// WS-Management by Intel's generator of its messages, as its own programs send them.
//
//   messages.js take COLLECTION ENDPOINT USER PASSWORD
//   messages.js finish ID ENDPOINT USER PASSWORD
//   messages.js all ENDPOINT USER PASSWORD
//
// `take` finds a collection, snapshots it and follows the job, and prints the snapshot's
// CollectionID; `finish` lists the snapshots, applies that one and destroys it. `all` sends
// every message that the generator can make, and prints how many were answered how.

const { AMT, CIM, IPS } = require('@open-amt-cloud-toolkit/wsman-messages')
const { WSManMessageCreator, BaseActions } =
  require('@open-amt-cloud-toolkit/wsman-messages/WSMan')
const assert = require('assert')

const [step, ...words] = process.argv.slice(2)
const [endpoint, user, password] = words.slice(-3)
const authorization = 'Basic ' + Buffer.from(`${user}:${password}`).toString('base64')

// The text of the first element of this name, whatever its prefix; null if it is none.
function text (xml, name) {
  const found = xml.match(new RegExp(`<(?:\\w+:)?${name}(?: [^>]*[^/>])?>([^<]*)</`))
  return found && found[1]
}

async function send (message) {
  const answer = await fetch(endpoint, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/soap+xml;charset=UTF-8' },
    body: message
  })
  const body = await answer.text()
  assert.equal(text(body, 'RelatesTo'), text(message, 'MessageID'), body)
  return { status: answer.status, body }
}

async function ok (message) {
  const { status, body } = await send(message)
  assert.equal(status, 200, body)
  return body
}

const base = 'http://schemas.microsoft.com/wbem/wsman/1/wmi/root/HyperVCluster/v2/'
const creator = new WSManMessageCreator(base)
const common = creator.createCommonBody

async function get (name, selector) {
  const header = creator.createHeader(BaseActions.GET, name, selector)
  return await ok(creator.createXml(header, common.Get()))
}

// All instances of a class, a few at a time.
async function all (name) {
  let header = creator.createHeader(BaseActions.ENUMERATE, name)
  let answer = await ok(creator.createXml(header, common.Enumerate()))
  const found = []
  do {
    header = creator.createHeader(BaseActions.PULL, name)
    const context = text(answer, 'EnumerationContext')
    answer = await ok(creator.createXml(header, common.Pull(context, 2)))
    const item = new RegExp(`<(\\w+:${name})[ >].*?</\\1>`, 'gs')
    found.push(...(answer.match(item) ?? []))
  } while (!/EndOfSequence/.test(answer))
  return found
}

function reference (name, key, value) {
  return {
    Address: endpoint,
    ReferenceParameters: {
      ResourceURI: base + name,
      SelectorSet: creator.createSelectorObjectForBody({ name: key, value })
    }
  }
}

// A method that starts a job, which is followed to its end.
async function completed (name, method, parameters) {
  const header = creator.createHeader(`${base}${name}/${method}`, name)
  const body = creator.createBody(`${method}_INPUT`, name, [parameters])
  const output = await ok(creator.createXml(header, body))
  assert.equal(text(output, 'ReturnValue'), '4096', output)
  const id = output.match(/Job>.*?Name="InstanceID">([^<]*)</s)[1]
  let job
  do {
    await new Promise(resolve => setTimeout(resolve, 100))
    job = await get('Msvm_ConcreteJob', { name: 'InstanceID', value: id })
  } while (['3', '4'].includes(text(job, 'JobState')))
  assert.equal(text(job, 'JobState'), '7', job)
  return output
}

const service = 'Msvm_CollectionSnapshotService'
const snapshots = 'Msvm_SnapshotCollection'

async function take (wanted) {
  const collections = await all('Msvm_VirtualSystemCollection')
  const [shop] = collections.filter(found => text(found, 'ElementName') === wanted)
  const output = await completed(service, 'CreateSnapshot', {
    Collection:
      reference('Msvm_VirtualSystemCollection', 'CollectionID', text(shop, 'CollectionID')),
    SnapshotSettings: '',
    SnapshotType: 2
  })
  return output.match(/ResultingSnapshotCollection>.*?Name="CollectionID">([^<]*)</s)[1]
}

async function finish (wanted) {
  const found = await all(snapshots)
  assert(found.some(snapshot => text(snapshot, 'CollectionID') === wanted), found)
  const snapshot = () => reference(snapshots, 'CollectionID', wanted)
  await completed(service, 'ApplySnapshot', { SnapshotCollection: snapshot() })
  await completed(service, 'DestroySnapshot', { AffectedSnapshotCollection: snapshot() })
  const left = await all(snapshots)
  assert(!left.some(snapshot => text(snapshot, 'CollectionID') === wanted), left)
  return wanted
}

const TEXTS = /^(enumerationContext|\w*[pP]assword|username|digest\w+|kerberos\w+|mcNonce|digitalSignature|source|bootSource|optInCode|cert|certHandle|keyBlob|\w+Issuer|clientCertificate|\w+Credential)$/
const NUMBERS = /(State|Type|Algorithm|Index|Permission|handle|identifier|Mode|role|ta0|tm\d|maxElements|maxCharacters)$/

// An argument of a parameter of this name.
function argument (name) {
  if (name === 'selector') return { name: 'InstanceID', value: 'one' }
  if (name === 'realms') return [1, 2, 3]
  if (/^(is|enabled)/.test(name)) return true
  if (name === 'mpsUsernamePassword') return object()
  if (name === 'optInServiceResponse') return { IPS_OptInService: object() }
  if (TEXTS.test(name)) return 'dGV4dA=='
  if (NUMBERS.test(name)) return 2
  return object()
}

function object () {
  return {
    InstanceID: 'Intel(r) 1',
    ElementName: 'one',
    Protocols: ['a', 'b'],
    ListenerEnabled: true,
    StartTime: new Date(0),
    Interval: 1440,
    DeleteOnCompletion: true
  }
}

function everyMessage () {
  const made = []
  for (const family of [AMT, CIM, IPS]) {
    for (const sender of Object.values(new family.Messages())) {
      for (const [name, make] of Object.entries(sender?.className ? sender : {})) {
        if (typeof make !== 'function' || name.startsWith('protected')) continue
        const parameters = make.toString().match(/^\(?([^)=]*)\)?\s*=>/)[1]
        made.push(make(...parameters.split(',').map(p => p.trim()).filter(Boolean).map(argument)))
      }
    }
  }
  return made
}

// Each is read: what is answered is that its resource is none of ours, or what it asks for.
async function sendAll () {
  const answers = {}
  for (const message of everyMessage()) {
    const { body } = await send(message)
    const codes = [...body.matchAll(/Value>\w+:(\w+)</g)].map(found => found[1])
    const answer = codes.pop() ?? text(message, 'Action').split('/').pop()
    answers[answer] = (answers[answer] ?? 0) + 1
  }
  return answers
}

const steps = { take: () => take(words[0]), finish: () => finish(words[0]), all: sendAll }
steps[step]().then(result => console.log(JSON.stringify(result)))
