// Items of BEP 44 by npm's bittorrent-dht, signed and checked by Node's own Ed25519.
//
//   node dht_items.cjs NODE_MODULES BOOTSTRAP_PORT get TARGET SALT
//   node dht_items.cjs NODE_MODULES BOOTSTRAP_PORT put SEED SALT SEQ INFO_HASH
//
// All but numbers in hexadecimal. Prints the item found, or where it was put, as one line of JSON.
const crypto = require('crypto')
const path = require('path')

const [modules, bootstrap, verb, subject, saltHex, seq, infoHash] = process.argv.slice(2)
const salt = Buffer.from(saltHex, 'hex')

// Raw keys behind the fixed starts of their DER forms (RFC 8410).
const publicKey = (raw) => crypto.createPublicKey({
  key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), raw]),
  format: 'der',
  type: 'spki'
})
const privateKey = (seed) => crypto.createPrivateKey({
  key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]),
  format: 'der',
  type: 'pkcs8'
})
const verify = (signature, message, key) => crypto.verify(null, message, publicKey(key), signature)

async function main () {
  const { Client } = await import('file://' + path.join(modules, 'bittorrent-dht', 'index.js'))
  const dht = new Client({ bootstrap: ['127.0.0.1:' + bootstrap], verify })
  dht.listen(0, '127.0.0.1')
  await new Promise((resolve) => dht.once('ready', resolve))
  const end = (error, found) => {
    console.log(JSON.stringify(error ? { error: error.message } : found))
    dht.destroy(() => process.exit(error ? 1 : 0))
  }
  if (verb === 'get') {
    const options = salt.length ? { salt } : {}
    dht.get(subject, options, (error, item) => end(error, item && {
      key: item.k.toString('hex'),
      seq: item.seq,
      ih: item.v.ih.toString('hex'),
      ih2: item.v.ih2 ? item.v.ih2.toString('hex') : null
    }))
  } else {
    const key = privateKey(Buffer.from(subject, 'hex'))
    const raw = crypto.createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32)
    const item = {
      k: raw,
      seq: Number(seq),
      v: { ih: Buffer.from(infoHash, 'hex') },
      sign: (message) => crypto.sign(null, message, key)
    }
    if (salt.length) item.salt = salt
    dht.put(item, (error, target) => end(error, { target: target && target.toString('hex') }))
  }
}

main()
