use std::{fmt, path::Path};

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718,
    network::TxSignerSync,
    primitives::{B256, hex},
    signers::local::PrivateKeySigner,
};
use task::{Address, Hash};

use crate::Error;

/// A private key. It is shown nowhere.
#[derive(Clone)]
pub struct Key {
    signer: PrivateKeySigner,
}

impl Key {
    /// Reads 32 bytes of hex, with or without `0x` and whitespace around.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let bytes: [u8; 32] = hex::decode_to_array(digits)
            .map_err(|_| Error::InvalidKey("it is not 64 hex digits"))?;
        let signer = PrivateKeySigner::from_bytes(&B256::from(bytes))
            .map_err(|_| Error::InvalidKey("it is no point of the curve"))?;
        Ok(Self { signer })
    }

    /// Reads a file with hex, or with a keystore (JSON) that the password opens. Opening a keystore takes about a
    /// second of the calling thread, by design.
    pub fn from_file(path: &Path, password: Option<&str>) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::KeyFile { path: shown, source })?;
        if !text.trim_start().starts_with('{') {
            return Self::from_hex(&text);
        }
        let password = password.ok_or(Error::InvalidKey("the keystore needs a password"))?;
        let signer =
            PrivateKeySigner::decrypt_keystore(path, password.trim_end_matches(['\r', '\n']))
                .map_err(|_| Error::InvalidKey("the keystore does not open with this password"))?;
        Ok(Self { signer })
    }

    /// The account's address.
    #[must_use]
    pub fn address(&self) -> Address {
        task::Hex(self.signer.address().into_array())
    }

    /// Whether both are the same account.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.signer.address() == other.signer.address()
    }

    /// Signs; the answer is the hash and the bytes as 0x-hex.
    pub(crate) fn sign(&self, mut transaction: TxEip1559) -> Result<(Hash, String), Error> {
        let signature = self
            .signer
            .sign_transaction_sync(&mut transaction)
            .map_err(|_| Error::InvalidKey("the transaction cannot be signed"))?;
        let envelope = TxEnvelope::from(transaction.into_signed(signature));
        Ok((task::Hex(envelope.tx_hash().0), hex::encode_prefixed(envelope.encoded_2718())))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const HEX: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[test]
    fn a_key_shows_its_address_and_never_itself() {
        let key = Key::from_hex(&format!("0x{HEX}\n")).unwrap();
        assert_eq!(key.address().to_string(), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        assert!(key.is_same(&Key::from_hex(HEX).unwrap()));
        assert!(!format!("{key:?}").contains(&HEX[..8]));
        for text in ["", "0x12", &"0".repeat(64), &"g".repeat(64)] {
            assert_eq!(Key::from_hex(text).unwrap_err().code(), "invalid_key");
        }
    }

    #[test]
    fn a_key_file_holds_hex_or_a_keystore() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::from_hex(HEX).unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{HEX}\n")).unwrap();
        assert!(Key::from_file(&file, None).unwrap().is_same(&key));
        let keystore = folder.path().join("keystore");
        // Written by `cast wallet import` for the password "wasm-exec".
        std::fs::write(&keystore, KEYSTORE).unwrap();
        assert!(Key::from_file(&keystore, Some("wasm-exec\n")).unwrap().is_same(&key));
        for password in [None, Some("wrong")] {
            assert_eq!(Key::from_file(&keystore, password).unwrap_err().code(), "invalid_key");
        }
        assert_eq!(
            Key::from_file(&folder.path().join("none"), None).unwrap_err().code(),
            "key_file"
        );
    }

    const KEYSTORE: &str = include_str!("../tests/keystore.json");
}
