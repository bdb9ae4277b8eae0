// Signature Version 4 for one request (AWS IAM User Guide, "Create a signed AWS API request").
import crypto from 'crypto';

const EMPTY = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
const SIGNED = 'host;x-amz-content-sha256;x-amz-date';
const REGION = 'us-east-1';

// Modules are evaluated anew for each request, so both variables below see the same moment.
const NOW = new Date().toISOString().replace(/[:-]|\.\d{3}/g, '');

function hmac(key, text) {
    return crypto.createHmac('sha256', key).update(text);
}

function date(r) {
    return NOW;
}

function authorization(r) {
    const day = NOW.slice(0, 8);
    const scope = `${day}/${REGION}/s3/aws4_request`;
    const path = r.uri.split('/').map(encodeURIComponent).join('/');
    const request = `${r.method}\n${path}\n\nhost:${process.env.S3_HOST}\n` +
        `x-amz-content-sha256:${EMPTY}\nx-amz-date:${NOW}\n\n${SIGNED}\n${EMPTY}`;
    const hash = crypto.createHash('sha256').update(request).digest('hex');
    const day_key = hmac('AWS4' + process.env.S3_SECRET_KEY, day).digest();
    const service_key = hmac(hmac(day_key, REGION).digest(), 's3').digest();
    const key = hmac(service_key, 'aws4_request').digest();
    const signature = hmac(key, `AWS4-HMAC-SHA256\n${NOW}\n${scope}\n${hash}`).digest('hex');
    return `AWS4-HMAC-SHA256 Credential=${process.env.S3_ACCESS_KEY}/${scope}, ` +
        `SignedHeaders=${SIGNED}, Signature=${signature}`;
}

export default { authorization, date };
